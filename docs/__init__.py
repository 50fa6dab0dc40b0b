"""The course as a web site: `python -m docs.build`."""

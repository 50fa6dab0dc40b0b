"""The hub's proxy in Python, with room for a whole class.

`configurable_http_proxy` keeps Tornado's defaults: ten requests at a time, twenty
seconds for each. A browser that waits for its server holds one of them all the while,
so the eleventh learner would wait for ten others, and all would be told of a timeout.
"""

from configurable_http_proxy.cli import main
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

REQUESTS = 2000  # at a time
LARGEST = 2**30  # bytes of one answer: a learner may download a model
PATIENCE = {"connect_timeout": 120.0, "request_timeout": 3600.0}  # seconds

if __name__ == "__main__":
    AsyncHTTPClient.configure(None, max_clients=REQUESTS, max_body_size=LARGEST)
    HTTPRequest._DEFAULTS.update(PATIENCE)  # websockets read these
    main()

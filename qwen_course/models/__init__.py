"""The pocket models, one folder each, and the check that they are whole."""

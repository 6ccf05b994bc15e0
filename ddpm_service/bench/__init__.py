"""Measurements of the running service; in a folder of their own, apart from the tests."""

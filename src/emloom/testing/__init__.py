"""Phantoms and conformance suites that tests, here and elsewhere, may reuse."""

"""Readers of trace files, one module a format; each is found by its name in the registry."""

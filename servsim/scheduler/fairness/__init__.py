"""Schedulers that are fair to tenants."""

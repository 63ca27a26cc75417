"""Schedulers that go by deadlines and priorities."""

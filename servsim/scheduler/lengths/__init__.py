"""Schedulers that go by how long requests are, or are believed to be."""

"""Benchmarks: one folder each, one command each (``make bench NAME=...``)."""

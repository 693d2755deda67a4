"""Measurements, each a script with one command; `make bench` runs those of docs/performance.md."""

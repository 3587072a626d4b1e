"""Measure speed and memory, against other ways to do the same: see docs/performance.md."""

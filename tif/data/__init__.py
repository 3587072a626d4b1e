"""Readers of benchmarks; samples become tokens, masks and batches."""

"""Measured cells as benchmarks of pytest-benchmark."""

"""Metrics and the statistics around them: pure functions over arrays."""

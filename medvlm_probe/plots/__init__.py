"""Figures: a tidy table in, a matplotlib Figure out; no statistics, no files, no pyplot."""

"""Evaluation: readers of benchmark data, correlation and ranking measures, the published figures."""

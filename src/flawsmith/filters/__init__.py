"""Scores of the quality gate, one subject per file."""

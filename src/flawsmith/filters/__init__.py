"""Scores of made pictures for the quality gate, one subject a file."""

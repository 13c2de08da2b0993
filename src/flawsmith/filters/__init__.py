"""Scores of made pictures, one a file. The stage `screen` that uses them is not built yet."""

"""Layouts that other tools read, one a file."""

"""Layouts that other tools read, one per file."""

"""Rulers of made pictures beside real ones."""

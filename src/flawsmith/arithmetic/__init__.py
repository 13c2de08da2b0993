"""Arithmetic that nobody plugs in: arrays in, numbers out, without torch."""

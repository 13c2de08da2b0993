"""Detectors that `prove` trains on several sets. Not built yet."""

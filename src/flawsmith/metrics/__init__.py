"""Comparisons of made with real pictures. The stages `measure` and `prove` that use them are not built yet."""

"""The quality gate: describe every sample, judge it, ask for more."""

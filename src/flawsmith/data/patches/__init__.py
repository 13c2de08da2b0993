"""Damage re-synthesised from patches of several shots: ratios to the undamaged, sources, the search, the profile."""

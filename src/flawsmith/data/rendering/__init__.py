"""Damage without a shot: a site on the part, and the factory's damage in a photograph's own light, blur and grain."""

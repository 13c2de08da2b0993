"""Damage of types that no shot shows: what the plan asks for in place of a re-posed shot."""

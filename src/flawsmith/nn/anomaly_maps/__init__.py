"""Anomaly maps read from a diffusion model: by the words it is given, or by DualAnoDiff's second branch."""

"""Anomaly maps: by a diffusion model's words, by DualAnoDiff's branch; two weighed."""

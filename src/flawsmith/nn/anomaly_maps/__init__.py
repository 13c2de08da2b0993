"""Anomaly maps: by a diffusion model's words, by DualAnoDiff's second branch; two maps weighed."""

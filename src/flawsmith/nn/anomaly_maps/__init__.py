"""Anomaly maps: read from a diffusion model by its words or by DualAnoDiff's second branch; two maps weighed."""

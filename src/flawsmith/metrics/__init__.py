"""Metrics: samples measured beside real pictures."""

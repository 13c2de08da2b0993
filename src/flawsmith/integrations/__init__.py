"""Runs inside other libraries, each of which an extra installs: Anomalib."""

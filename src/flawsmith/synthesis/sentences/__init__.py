"""Plan lines from a plain sentence."""

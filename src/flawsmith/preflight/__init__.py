"""What can be said before a run starts: check, refuse, cost."""

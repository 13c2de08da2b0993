"""What lets the same work fit into less memory; what is learned or painted stays the same but for rounding."""

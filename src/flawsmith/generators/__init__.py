"""Ways to paint damage, one method per file."""

"""A run on many machines: the pieces of its stages as tasks of Ray."""

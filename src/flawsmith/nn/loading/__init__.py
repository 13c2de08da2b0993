"""Reading a backbone: what stands at a source, in which layout, and the networks in it."""

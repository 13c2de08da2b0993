"""What a run makes, batch by batch: the plan on disk, what is made of it, and the processes that make it."""

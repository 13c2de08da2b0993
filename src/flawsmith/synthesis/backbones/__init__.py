"""What the stages `train` and `generate` know of a run's backbone."""

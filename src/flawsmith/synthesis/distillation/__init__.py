"""A run whose generator is taught by that of another run."""

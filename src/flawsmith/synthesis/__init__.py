"""Learn the defects and paint them: train, plan, paint, generate."""

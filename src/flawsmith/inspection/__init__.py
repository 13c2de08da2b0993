"""What a user takes to the line: a model, the inspection of pictures, new thresholds."""

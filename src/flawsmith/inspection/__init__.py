"""What a user takes to the line: a chosen recipe, a delivered model, the inspection of pictures, new thresholds."""

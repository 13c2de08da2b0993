"""Components of a product: where they are on a normal picture, found there or drawn once."""

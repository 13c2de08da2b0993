"""Networks: the frozen backbone, diffusion's arithmetic, attention, the training loop, weights on disk."""

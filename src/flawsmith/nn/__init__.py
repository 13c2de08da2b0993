"""Networks: backbone, diffusion, the papers' modules, the training loop."""

"""Training of denoising networks: recipes, the loop, checkpoints that can be sampled and resumed."""

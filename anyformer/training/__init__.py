"""Training: what is minimised, how the learning rate moves, the loop."""

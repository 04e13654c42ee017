"""Other people's checkpoints: their configs, the names of their tensors, their files."""

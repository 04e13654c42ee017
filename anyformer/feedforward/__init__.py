"""What a block does to each token alone."""

TABLE = {
    "clamped": "clamped:Clamped",
    "experts": "experts:Experts",
    "gated": "gated:Gated",
    "mlp": "mlp:MLP",
}

"""What a block does to each token alone."""

TABLE = {
    "experts": "experts:Experts",
    "gated": "gated:Gated",
    "mlp": "mlp:MLP",
}

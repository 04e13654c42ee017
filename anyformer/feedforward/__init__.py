"""What a block does to each token alone."""

TABLE = {
    "gated": "gated:Gated",
    "mlp": "mlp:MLP",
}

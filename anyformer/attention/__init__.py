"""Mixers: what lets tokens read each other."""

TABLE = {
    "big_bird": "big_bird:BigBird",
    "cross": "cross:Cross",
    "latent": "latent:Latent",
    "linear": "linear:Linear",
    "longformer": "longformer:Longformer",
    "mamba2": "mamba2:Mamba2",
    "softmax": "softmax:Softmax",
}

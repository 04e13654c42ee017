"""Schedules: how the learning rate moves over a run."""

TABLE = {
    "constant": "constant:Constant",
    "cosine": "cosine:Cosine",
    "inverse_sqrt": "inverse_sqrt:InverseSqrt",
    "linear": "linear:Linear",
    "wsd": "wsd:Wsd",
}

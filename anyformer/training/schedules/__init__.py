"""Schedules: how the learning rate moves over a run."""

TABLE = {
    "constant": "constant:Constant",
    "cosine": "cosine:Cosine",
}

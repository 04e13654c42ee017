"""Mixers: what lets tokens read each other."""

TABLE = {
    "cross": "cross:Cross",
    "linear": "linear:Linear",
    "softmax": "softmax:Softmax",
}

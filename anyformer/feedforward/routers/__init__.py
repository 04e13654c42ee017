"""How a token's experts are chosen and weighed."""

TABLE = {
    "sigmoid": "sigmoid:SigmoidRouter",
    "softmax": "softmax:SoftmaxRouter",
}

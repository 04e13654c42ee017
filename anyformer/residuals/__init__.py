"""How a part joins the stream inside a block."""

TABLE = {
    "deepnorm": "deepnorm:DeepNorm",
    "post": "post:Post",
    "pre": "pre:Pre",
    "rezero": "rezero:ReZero",
    "sandwich": "sandwich:Sandwich",
}

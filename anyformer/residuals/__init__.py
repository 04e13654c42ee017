"""How a part joins the stream inside a block."""

TABLE = {
    "deepnorm": "deepnorm:DeepNorm",
    "layer_scale": "layer_scale:LayerScale",
    "post": "post:Post",
    "pre": "pre:Pre",
    "rezero": "rezero:ReZero",
    "sandwich": "sandwich:Sandwich",
}

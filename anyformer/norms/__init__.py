"""Scales the vectors of the stream."""

TABLE = {
    "layer": "layer:LayerNorm",
    "no_norm": "nothing:NoNorm",
    "rms": "rms:RMSNorm",
    "scale": "scale:ScaleNorm",
}

"""Scales the vectors of the stream."""

TABLE = {
    "layer": "layer:LayerNorm",
    "no_norm": "nothing:NoNorm",
    "rms": "rms:RMSNorm",
    "rms_offset": "rms_offset:OffsetRMSNorm",
    "scale": "scale:ScaleNorm",
}

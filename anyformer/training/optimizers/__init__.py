"""Optimisers: how gradients change the weights."""

TABLE = {
    "adafactor": "adafactor:Adafactor",
    "adamw": "adamw:AdamW",
    "muon": "muon:Muon",
}

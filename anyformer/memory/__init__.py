"""Layers that hold a layer and carry the past as something smaller."""

TABLE = {
    "rmt": "recurrent:RMT",
}

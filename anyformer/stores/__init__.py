"""How keys and values are kept. Mixers only append, read and rewind."""

TABLE = {
    "fixed": "fixed:Fixed",
    "grow": "grow:Grow",
    "slots": "slots:Slots",
}

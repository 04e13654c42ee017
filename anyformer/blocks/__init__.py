"""How mixers and feed-forwards make a block, and blocks a stack."""

TABLE = {
    "block": "sequential:Block",
    "stack": "stack:Stack",
}

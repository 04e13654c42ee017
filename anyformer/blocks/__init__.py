"""How mixers and feed-forwards make a block, and blocks a stack."""

TABLE = {
    "block": "sequential:Block",
    "parallel": "parallel:Parallel",
    "stack": "stack:Stack",
}

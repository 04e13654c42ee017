"""How the stream runs from block to block."""

TABLE = {
    "plain": "plain:Plain",
}

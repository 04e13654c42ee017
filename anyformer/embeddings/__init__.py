"""How tokens enter."""

TABLE = {
    "tokens": "tokens:Tokens",
}

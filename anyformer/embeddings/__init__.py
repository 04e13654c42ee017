"""How tokens enter."""

TABLE = {
    "factorised": "factorised:Factorised",
    "given": "given:Given",
    "tokens": "tokens:Tokens",
}

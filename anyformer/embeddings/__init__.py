"""How tokens enter."""

TABLE = {
    "factorised": "factorised:Factorised",
    "frames": "frames:Frames",
    "given": "given:Given",
    "patches": "patches:Patches",
    "tokens": "tokens:Tokens",
}

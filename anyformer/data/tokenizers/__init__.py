"""How text becomes numbers."""

TABLE = {
    "bpe": "bpe:Bpe",
    "bytes": "bytes:Bytes",
    "characters": "characters:Characters",
    "file": "file:File",
    "unigram": "unigram:Unigram",
    "wordpiece": "wordpiece:WordPiece",
}

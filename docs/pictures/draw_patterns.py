"""Draws patterns.svg beside this file: who sees whom, asked of the patterns themselves."""

from pathlib import Path

import torch

from anyformer.core.context import Where
from anyformer.patterns.base import parse

TEXTS = (
    "full",
    "causal",
    "causal & window(4)",
    "causal & (sinks(2) | window(4))",
    "causal | prefix",
    "causal & documents",
)
SIZE, CELL, GAP, TOP = 12, 9, 26, 20
ACROSS = SIZE * CELL + GAP


def where() -> Where:
    """Twelve tokens in two documents, the first four of them marked as a prefix."""
    start = Where.start(1, SIZE)
    place = torch.arange(SIZE)[None]
    document = (place >= 7).long()
    return Where(start.time, start.coords, {"prefix": (place < 4).long(), "document": document, "start": 0 * place})


def draw() -> str:
    """One square a pattern: queries from top to bottom, keys from left to right."""
    tokens, out = where(), []
    for number, text in enumerate(TEXTS):
        left = number % 3 * (ACROSS + 96) + 35
        top = number // 3 * (ACROSS + 22) + TOP
        seen = parse(text).sees(tokens.queries, tokens.keys)[0]
        out.append(f'<text x="{left}" y="{top - 7}">{text.replace("&", "&amp;")}</text>')
        for row in range(SIZE):
            for column in range(SIZE):
                fill = "#2f6fdd" if seen[row, column] else "#e8ebf0"
                x, y = left + column * CELL, top + row * CELL
                out.append(f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{fill}"/>')
    width, height = 3 * (ACROSS + 96), 2 * (ACROSS + 22) + 4
    style = 'font-family="ui-monospace, monospace" font-size="11" fill="#555"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {style}>'
    return "\n".join([head, "<title>Which keys (columns) each query (row) sees</title>", *out, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("patterns.svg").write_text(draw())

"""Which channels of a head turn together: neighbours in Meta's files, those half a head apart in Hugging Face's.

(2i, 2i + 1) -> (i, i + D/2): the same model, with the rows of its queries and keys in another order.
"""

from __future__ import annotations

from torch import Tensor


def to_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows (H D, …) from neighbours to halves."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def to_neighbours(rows: Tensor, heads: int) -> Tensor:
    """Rows (H D, …) from halves to neighbours."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)

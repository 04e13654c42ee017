"""Prefix tuning (Li & Liang 2021): every mixer has P keys and values that are learned, and that every token sees.

out_i = sum_j w_ij v_j,  w_i = softmax([q_i . k'_1 … q_i . k'_P ; q_i . k_j of the tokens j that i sees] / sqrt D)

They are nowhere: no pattern hides them, no position scheme turns them, and the text keeps its own positions. They are
learned themselves, without the paper's network that makes them (Liu et al. 2021, P-Tuning v2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from anyformer.attention.cross import CrossAttention
from anyformer.attention.softmax import SoftmaxAttention
from anyformer.core.context import Where
from anyformer.core.errors import ConfigError
from anyformer.core.fills import small
from anyformer.core.layer import Part
from anyformer.core.model import Model
from anyformer.core.paths import chosen
from anyformer.core.spec import AdapterSpec, Site, Size, spec
from anyformer.kernels.attention import Region
from anyformer.patterns.global_tokens import GlobalTokens

LABEL = "learned"  # of the keys, so that a pattern finds them


@spec
class Prefix(AdapterSpec):
    """Learned keys and values in softmax and cross mixers (Li & Liang 2021).

    on: paths of the mixers, or of parts above them: `body`, `decoder.blocks.*.cross`. length: P.
    """

    on: Annotated[tuple[str, ...], Field(min_length=1)]
    length: Size = 10

    def attach(self, model: Model) -> None:
        found = model.named_modules()
        mixers = {path: part for path, part in found if isinstance(part, SoftmaxAttention | CrossAttention)}
        for path in chosen(self.on, mixers, "prefix.on", "softmax or cross mixer"):
            if mixers[path].prefix is not None:
                raise ConfigError(f"prefix.on: {path} has a prefix already")
            mixers[path].prefix = LearnedKeys(self, mixers[path])


class LearnedKeys(Part):
    """k, v: (P, G, D)."""

    k: Tensor
    v: Tensor

    def __init__(self, spec: Prefix, mixer: SoftmaxAttention | CrossAttention) -> None:
        super().__init__(Site(f"{mixer.path}.prefix", mixer.head_size))
        self.pattern = mixer.pattern | GlobalTokens(LABEL)
        sizes = {"M": spec.length, "G": mixer.groups, "D": mixer.head_size}
        self.param("k", ("M", "G", "D"), sizes, small)
        self.param("v", ("M", "G", "D"), sizes, small)

    def forward(self, region: Region) -> Region:
        """The region with the prefix before its keys."""
        count, seen, adds = len(self.k), region.k_where, region.adds
        first = seen.time.new_zeros(seen.time.shape[0], count)
        coords = first[..., None].expand(*first.shape, seen.coords.shape[-1])
        before = Where(first, coords, dict.fromkeys(seen.labels, first))
        k, v = (
            torch.cat([learned.to(kept.dtype).expand(kept.shape[0], -1, -1, -1), kept], 1)
            for learned, kept in ((self.k, region.k), (self.v, region.v))
        )
        return replace(
            region,
            k=k,
            v=v,
            q_where=marked(region.q_where, 0),
            k_where=marked(before, 1).join(marked(seen, 0)),
            pattern=self.pattern,
            scores=None if region.scores is None else F.pad(region.scores, (count, 0)),
            straight=False,
            adds=None if adds is None else lambda weights: adds(weights[..., count:]),
        )


def marked(where: Where, value: int) -> Where:
    """The same tokens, with the label that tells learned keys from others."""
    return replace(where, labels={**where.labels, LABEL: torch.full_like(where.time, value)})

"""Weights published in few bits, shown as plain tensors under plain names, each made when it is asked for.

    fp8 (DeepSeek-AI 2024, section 3.3.2)         w_ij = q_ij s[i // 128, j // 128], q of 8 bits: e4m3
    mxfp4 (OCP Microscaling Formats 1.0, 2023)    w_ij = q_ij 2^(s[i, j // 32] - 127), q of 4 bits: e2m1

A file says by its names which tensors are written so; `quantization_config` says how they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from anyformer.checkpoints.config import SIZE, Config, Reading, several
from anyformer.checkpoints.foreign import Foreign, Lazy
from anyformer.core.errors import InputError
from anyformer.core.explain import came

KEY = "quantization_config"
WHICH = ("dequantize", "ignored_layers", "modules_to_convert", "modules_to_not_convert")  # what the names say already
LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of e2m1; the highest bit is the sign


class Codec(ABC):
    """How weights are written. weight, scales: what the names of the two tensors add to a plain name. stored: of q."""

    weight: ClassVar[str]
    scales: ClassVar[str]
    stored: ClassVar[torch.dtype]

    @abstractmethod
    def plain(self, q: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """The tensor that the two stand for; ValueError: they stand for none."""


@dataclass(frozen=True)
class BlockFP8(Codec):
    """A scale for each block of a matrix; blocks at the edges may be cut. block: rows and columns."""

    weight = ""
    scales = "_scale_inv"
    stored = torch.float8_e4m3fn

    block: tuple[int, ...]

    @staticmethod
    def of(c: Config) -> BlockFP8:
        c.expect("fmt", "e4m3", default="e4m3")
        c.expect("activation_scheme", "dynamic", default="dynamic")
        c.expect("scale_fmt", "float", "ue8m0", default="float")
        c.expect("expert_dtype", "fp8", default="fp8")
        block = c.take("weight_block_size", several(SIZE), "", [128, 128])
        if len(block) != 2:
            raise ValueError(f"weight_block_size should be the rows and the columns of a block; came {list(block)}")
        return BlockFP8(block)

    def plain(self, q: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """In float32, as the kernels that read such weights, then rounded once more; a row of blocks at a time."""
        down, right = self.block
        grid = tuple(-(-size // step) for size, step in zip(q.shape, self.block, strict=False))
        if q.dim() != 2 or scales.shape != grid or not scales.is_floating_point():
            raise ValueError(f"blocks of {down} by {right} need floating-point scales of the shape {grid}")
        if not scales.isfinite().all():
            raise ValueError("some scales are not finite")
        made = torch.empty(q.shape, dtype=dtype)
        for rows, out, row in zip(q.split(down), made.split(down), scales.float(), strict=True):
            values = rows.float()  # (down, C)
            if values.isnan().any():
                raise ValueError("some weights are not a number")
            out.copy_(values * row.repeat_interleave(right)[: q.shape[1]])
        return made


@dataclass(frozen=True)
class MXFP4(Codec):
    """A power of two for each 32 numbers of a row, two to a byte, the lower half first; matrices of experts, turned."""

    weight = "_blocks"
    scales = "_scales"
    stored = torch.uint8

    @staticmethod
    def of(c: Config) -> MXFP4:
        return MXFP4()

    def plain(self, q: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """(E, R, G, 16) and (E, R, G) -> (E, 32 G, R), an expert at a time; exact, where dtype has such powers."""
        if q.dim() != 4 or q.shape != (*scales.shape, 16) or scales.dtype != torch.uint8:
            raise ValueError("blocks should be (experts, rows, groups, 16) and scales (experts, rows, groups) of uint8")
        if (scales == 255).any():
            raise ValueError("some scales are 255, which is not a number")
        wide = torch.promote_types(dtype, torch.float32)
        levels = torch.tensor([*LEVELS, *(-level for level in LEVELS)], dtype=wide)
        pairs = torch.stack([levels.repeat(16), levels.repeat_interleave(16)], -1)  # (256, 2), of each byte
        powers = torch.ldexp(torch.ones(256, dtype=wide), torch.arange(256) - 127)
        made = torch.empty(*q.shape, 2, dtype=dtype)
        for blocks, out, scale in zip(q, made, scales, strict=True):
            out.copy_(pairs[blocks.int()] * powers[scale.int()][..., None, None])
        return made.flatten(2).mT


CODECS = {"fp8": BlockFP8.of, "mxfp4": MXFP4.of}


def told(config: Mapping[str, Any], where: str, allow: Collection[str] = ()) -> tuple[dict[str, Any], Codec | None]:
    """The config of the same model with plain weights, and how these are written; None: as they are."""
    rest = {key: value for key, value in config.items() if key != KEY}
    if config.get(KEY) is None:
        return rest, None
    c = Reading(config[KEY], f"{where}: {KEY}")
    method = c.tree.get("quant_method")
    if not isinstance(method, str) or method not in CODECS:
        raise InputError(
            f"{where}: {KEY}: quant_method is {came(method)}; those read are {', '.join(CODECS)}: take the model from "
            "before it was quantised, or have the program that did it write plain weights"
        )
    c.ignore("quant_method", *WHICH)
    try:
        codec = CODECS[method](c)
    except ValueError as error:
        raise InputError(f"{where}: {KEY}: {error}") from None
    c.done(allow)
    return rest, codec


def dequantised(source: Foreign, where: str, dtype: torch.dtype, allow: Collection[str] = ()) -> Foreign:
    """The same model with plain weights. dtype: of those that are not plain in the file."""
    config, codec = told(source.config, where, allow)
    if codec is None:
        return source
    tensors, ends = source.tensors, [end for end in (codec.weight, codec.scales) if end]
    names = {name.removesuffix(end) for name in tensors for end in ends if name.endswith(end)}
    pairs = {name: (name + codec.weight, name + codec.scales) for name in sorted(names)}
    used = {part for pair in pairs.values() for part in pair}
    for name, pair in pairs.items():
        if lost := [part for part in pair if part not in tensors]:
            raise InputError(f"{where}: {name} is quantised, and {lost[0]} is missing")
        if name in tensors and name not in used:
            raise InputError(f"{where}: {name} stands there plain, and quantised as {pair[0]}")
    made = {name: partial(_made, tensors, pair, codec, dtype, where) for name, pair in pairs.items()}
    kept = {name: partial(_kept, tensors, name, codec, where) for name in tensors if name not in used}
    return replace(source, config=config, tensors=Lazy({**made, **kept}))


def _made(tensors: Mapping[str, Tensor], pair: tuple[str, str], codec: Codec, dtype: torch.dtype, where: str) -> Tensor:
    q, scales = (tensors[name] for name in pair)
    try:
        if q.dtype != codec.stored:
            raise ValueError(f"the weights should be {codec.stored}")
        return codec.plain(q, scales, dtype)
    except ValueError as error:
        said = " and ".join(
            f"{name}, {part.dtype} {tuple(part.shape)}" for name, part in zip(pair, (q, scales), strict=True)
        )
        raise InputError(f"{where}: {said}: {error}") from None


def _kept(tensors: Mapping[str, Tensor], name: str, codec: Codec, where: str) -> Tensor:
    if tensors[name].dtype == codec.stored:
        raise InputError(f"{where}: {name} is quantised, and {name}{codec.scales} is missing")
    return tensors[name]

"""The tensors of torch.nn's transformer layers under this library's names, read off their state dicts."""

from collections.abc import Mapping

from torch import Tensor

Named = dict[str, Tensor]


def attention(theirs: Mapping[str, Tensor], path: str) -> Named:
    """nn.MultiheadAttention at `path`: q, k and v are rows of one matrix there."""
    out: Named = {}
    for kind in ("weight", "bias"):
        if f"{path}.in_proj_{kind}" in theirs:
            q, k, v = theirs[f"{path}.in_proj_{kind}"].chunk(3)
            o = theirs[f"{path}.out_proj.{kind}"]
            out |= {f"q.{kind}": q, f"k.{kind}": k, f"v.{kind}": v, f"o.{kind}": o}
    return out


def module(theirs: Mapping[str, Tensor], path: str) -> Named:
    """Whatever a linear map or a norm at `path` has."""
    return {k: theirs[f"{path}.{k}"] for k in ("weight", "bias") if f"{path}.{k}" in theirs}


def under(path: str, named: Named) -> Named:
    return {f"{path}.{name}": tensor for name, tensor in named.items()}


def layer(theirs: Mapping[str, Tensor], path: str, cross: bool) -> Named:
    """An nn.TransformerEncoderLayer (or, with `cross`, an nn.TransformerDecoderLayer) as one of our blocks."""
    norms = {"mixer": "norm1", "cross": "norm2", "ff": "norm3"} if cross else {"mixer": "norm1", "ff": "norm2"}
    return {
        **under("mixer", attention(theirs, f"{path}.self_attn")),
        **(under("cross", attention(theirs, f"{path}.multihead_attn")) if cross else {}),
        **under("ff.up", module(theirs, f"{path}.linear1")),
        **under("ff.down", module(theirs, f"{path}.linear2")),
        **{
            k: v
            for ours, norm in norms.items()
            for k, v in under(f"residual.norm.{ours}", module(theirs, f"{path}.{norm}")).items()
        },
    }


def stack(theirs: Mapping[str, Tensor], path: str, layers: int, cross: bool = False) -> Named:
    """An nn.TransformerEncoder or nn.TransformerDecoder at `path` ("" or "encoder.") as our stack."""
    out = under("norm", module(theirs, f"{path}norm"))
    for i in range(layers):
        out |= under(f"blocks.{i}", layer(theirs, f"{path}layers.{i}", cross))
    return out

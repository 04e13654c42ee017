"""Folders of sentence-transformers (Reimers & Gurevych 2019): a model of Transformers, and how its stream is pooled.

`modules.json` lists what a text goes through, each module with a folder of its own: the transformer, a pooling, perhaps
a linear map with tanh, perhaps one without, perhaps a normalisation. Here that is one part, the head `sentence`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from anyformer.architectures.decoder import Decoder
from anyformer.architectures.encoder import Encoder
from anyformer.checkpoints.config import FLAG, SIZE, Kind, Reading, one_of, or_none
from anyformer.checkpoints.files import Weights, inside, read_json, read_tree
from anyformer.core.errors import InputError
from anyformer.core.explain import came
from anyformer.core.spec import ModelSpec
from anyformer.feedforward.activations import Activation
from anyformer.heads.pooling import Pool
from anyformer.heads.sentence import Sentence
from anyformer.models.published import CONFIG

MODULES, SETTINGS, GENERAL = "modules.json", "sentence_*_config.json", "config_sentence_transformers.json"
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
POOLS: dict[str, Pool] = {"cls": "first", "mean": "mean", "max": "max", "lasttoken": "last"}
FLAGS: dict[str, Pool] = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
OTHER_POOLS = ("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens")
ACTIVATIONS: Kind[Activation] = one_of(
    {"torch.nn.modules.activation.Tanh": "tanh", "torch.nn.modules.linear.Identity": "identity"}
)


@dataclass(frozen=True)
class Module:
    """kind: one of KINDS. folder: where its own files are."""

    kind: str
    folder: Path


@dataclass(frozen=True)
class Dense:
    """One linear map: of `size` numbers, from so many as `width`."""

    folder: Path
    width: int
    size: int
    bias: bool
    activation: Activation


def modules(folder: Path) -> list[Module]:
    """What a folder's `modules.json` lists; [] where it has none."""
    path = folder / MODULES
    if not path.is_file():
        return []
    listed, found = read_tree(path), []
    for item in listed if isinstance(listed, list) else [listed]:
        match item:
            case {"type": str(name), "path": str(at), **rest} if rest.keys() <= {"idx", "name"}:
                pass
            case _:
                raise InputError(f"{path}: should be a list of modules, each with a type and a path; came {came(item)}")
        package, _, kind = name.rpartition(".")
        if package.partition(".")[0] != "sentence_transformers" or kind not in KINDS:
            raise InputError(f"{path}: the module {name!r:.80} is not known; known: {', '.join(KINDS)}")
        if not inside(folder, at):
            raise InputError(f"{path}: {at!r:.80} is no folder of this one")
        found.append(Module(kind, folder / at))
    return found


def declared_sentences(spec: ModelSpec, folder: Path, allow: Collection[str] = ()) -> ModelSpec:
    """The spec of a folder's model with the head that its modules are; as it was where there are none."""
    path, found = folder / MODULES, modules(folder)
    if not found:
        return spec
    if not isinstance(spec, Encoder | Decoder):
        raise InputError(
            f"{path}: only an encoder or a decoder is read as a sentence encoder, not {type(spec).__name__}"
        )
    kinds = [module.kind for module in found]
    dense = [_dense(module.folder, allow) for module in found if module.kind == "Dense"]
    order = ["Transformer", "Pooling", *["Dense"] * len(dense), "Normalize"]
    if kinds not in (order, order[:-1]) or found[0].folder != folder:
        raise InputError(
            f"{path}: lists {', '.join(kinds)}; what is read is Transformer, in the folder itself, Pooling, perhaps "
            "Dense, perhaps Normalize"
        )
    hidden, out = _placed(dense, spec.width, str(path))
    head = Sentence(
        pool=_pool(found[1].folder / CONFIG, spec.width, allow),
        hidden=hidden is not None,
        size=None if out is None else out.size,
        bias=out is not None and out.bias,
        unit=kinds[-1] == "Normalize",
    )
    return replace(spec, head=head, context=_longest(folder, allow) or spec.context)


def sentence_tensors(folder: Path, tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """The tensors of a folder's model under our names, the head's being those of its modules."""
    dense = [_dense(module.folder) for module in modules(folder) if module.kind == "Dense"]
    made = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    for part, map in zip(("head.pooler.dense", "head.out"), _placed(dense, width, str(folder / MODULES)), strict=True):
        if map is not None:
            made |= _linear(map, part)
    return made


def _pool(path: Path, width: int, allow: Collection[str]) -> Pool:
    c = _reading(path)
    for key in ("word_embedding_dimension", "embedding_dimension"):
        c.expect(key, width, default=width)
    c.ignore("include_prompt")  # no prompt is put before a text
    for key in OTHER_POOLS:
        c.expect(key, False, default=False)
    named: Pool | None = c.given("pooling_mode", or_none(one_of(POOLS)), None)
    chosen: list[Pool] = [pool for key, pool in FLAGS.items() if c.given(key, FLAG, False)]
    if named is not None:
        chosen.append(named)
    c.done(allow)
    if len(chosen) != 1:
        raise InputError(f"{path}: should choose one way to pool; came {' and '.join(chosen) or 'none'}")
    return chosen[0]


def _dense(folder: Path, allow: Collection[str] = ()) -> Dense:
    c = _reading(folder / CONFIG)
    found = Dense(
        folder,
        width=c.take("in_features", SIZE, ""),
        size=c.take("out_features", SIZE, ""),
        bias=c.given("bias", FLAG, True),
        activation=c.take("activation_function", ACTIVATIONS, "", "torch.nn.modules.activation.Tanh"),
    )
    c.done(allow)
    return found


def _placed(dense: list[Dense], width: int, where: str) -> tuple[Dense | None, Dense | None]:
    """The map with tanh and the one without, as the head has them."""
    left = list(dense)
    hidden = left.pop(0) if left and left[0].activation == "tanh" else None
    out = left.pop(0) if left and left[0].activation == "identity" else None
    square = hidden is None or (hidden.size == width and hidden.bias)
    if left or not square or any(map.width != width for map in (hidden, out) if map is not None):
        shapes = ", ".join(f"{map.width} to {map.size}, {map.activation}" for map in dense)
        raise InputError(
            f"{where}: Dense is {shapes}; what is read is a map with bias and tanh that keeps the width {width}, then "
            "one without tanh to any width, either of which may be absent"
        )
    return hidden, out


def _linear(map: Dense, part: str) -> dict[str, Tensor]:
    tensors = Weights.open(map.folder)
    names = {"linear.weight": f"{part}.weight", **({"linear.bias": f"{part}.bias"} if map.bias else {})}
    shapes = {"linear.weight": (map.size, map.width), "linear.bias": (map.size,)}
    if tensors.keys() != names.keys() or any(tuple(tensors[name].shape) != shapes[name] for name in names):
        came = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise InputError(f"{map.folder}: should hold {', '.join(f'{n} {shapes[n]}' for n in names)}; holds {came}")
    return {ours: tensors[theirs] for theirs, ours in names.items()}


def _longest(folder: Path, allow: Collection[str]) -> int | None:
    """Tokens that are read of a text; None: nothing says it."""
    if (folder / GENERAL).is_file():
        c = _reading(folder / GENERAL)
        prompt = c.tree.get("default_prompt_name")
        if prompt is not None and "default_prompt_name" not in allow:
            raise InputError(
                f"{c.where}: puts the prompt {prompt!r:.80} before every text, which is not done here; add --allow "
                "default_prompt_name to go on without it, and put it there yourself"
            )
        c.ignore("__version__", "default_prompt_name", "model_type", "prompts", "similarity_fn_name")
        c.done(allow)
    for path in sorted(folder.glob(SETTINGS)):
        c = _reading(path)
        c.expect("do_lower_case", False, default=False)
        length = c.given("max_seq_length", or_none(SIZE), None)
        c.done(allow)
        return length
    return None


def _reading(path: Path) -> Reading:
    return Reading(read_json(path), str(path))

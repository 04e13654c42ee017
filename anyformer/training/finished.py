"""A trained model, opened to be asked: and what it was trained for, or, where nobody says it, what its head is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from anyformer import __version__
from anyformer.architectures.encoder_decoder import EncoderDecoder
from anyformer.core.errors import InputError
from anyformer.core.model import Model
from anyformer.core.spec import from_dict
from anyformer.data.corpus import Tokenizers
from anyformer.data.tokenizer import TextTokenizer
from anyformer.models.checkpoint import is_run
from anyformer.models.hub import located
from anyformer.models.load import How, load
from anyformer.models.texts import text_info
from anyformer.recipes.read import read, write
from anyformer.recipes.schema import Recipe
from anyformer.runs.folder import RunFolder
from anyformer.training.loop import objective_of
from anyformer.training.objectives.base import Objective

# What a published model with one of these heads is asked; with any other, the next token.
ASKED = {
    "classify": "classification",
    "masked": "masked",
    "pretraining": "masked",
    "regress": "regression",
    "sentence": "contrastive",
    "span": "answering",
    "tag": "tagging",
}
ON_TEXTS = ("masked", "next_token")  # objectives on running text; the others have tables
LENGTH = 512  # tokens of a row that is read, at most, where nothing says it


@dataclass(frozen=True)
class Finished:
    """A model that knows texts. folder: of a run; None: it was published by others."""

    folder: RunFolder | None
    model: Model
    recipe: Recipe
    objective: Objective[Any]
    tokenizers: Tokenizers

    @staticmethod
    def open(path: str | Path, **how: Unpack[How]) -> Finished:
        """The model at a path."""
        path = located(path)
        model = load(path, **how)
        if not isinstance(model.tokenizer, TextTokenizer):
            raise InputError(f"{path} has no tokenizer, so text cannot be read with it")
        source = model.source_tokenizer
        both = isinstance(source, TextTokenizer) and source is not model.tokenizer
        tokenizers = Tokenizers(model.tokenizer, source if both and isinstance(source, TextTokenizer) else None)
        folder = RunFolder.open(path) if is_run(path) else None
        recipe = asked(model) if folder is None else read(folder.recipe)
        return Finished(folder, model, recipe, objective_of(recipe), tokenizers)


def asked(model: Model) -> Recipe:
    """A recipe for what a published model's head is for; its data are yet to be named."""
    spec = model.spec
    tree = spec.to_dict()
    head = (tree.get("head") or {}).get("kind")
    objective = "seq2seq" if isinstance(spec, EncoderDecoder) else ASKED.get(str(head), "next_token")
    length = min(n for n in (LENGTH, model.longest, tree.get("context")) if n is not None)
    data = {"kind": "text" if objective in ON_TEXTS else "parallel" if objective == "seq2seq" else "table", "path": "-"}
    settings = {"training": {"length": length, "batch": 8}, "budget": {"steps": 1}}
    return from_dict(Recipe, {"model": spec, "data": data, "objective": objective, **settings})


def write_run(model: Model, path: Path) -> None:
    """A run folder with a model's weights, as if it had been trained for what its head is for."""
    texts, source, recipe = model.tokenizer, model.source_tokenizer, asked(model)
    both = isinstance(source, TextTokenizer) and source is not texts
    known = isinstance(texts, TextTokenizer)
    with RunFolder.create(
        path,
        spec=model.spec.to_dict(),
        recipe=write(recipe),
        tokenizer=texts.definition if known else None,
        source_tokenizer=source.definition if both and isinstance(source, TextTokenizer) else None,
        chat_template=texts.chat.source if known and texts.chat is not None else None,
        info={"anyformer": __version__, **(text_info(texts) if known else {}), "seed": 0},
    ) as run:
        run.write_weights(model.state_dict())

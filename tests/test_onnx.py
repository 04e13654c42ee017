"""ONNX: other runtimes compute the same numbers, for sizes that were not traced; what cannot be said is named."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.cases import CASES
from golden.published import ours, stored
from numpy.typing import NDArray
from torch import Tensor

import anyformer as af
from anyformer.architectures.decoder import Decoder
from anyformer.architectures.encoder import Encoder
from anyformer.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from anyformer.architectures.two_towers import TwoTowersModel
from anyformer.attention.cross import Cross
from anyformer.attention.linear import Linear
from anyformer.attention.softmax import Softmax
from anyformer.blocks.sequential import Block
from anyformer.blocks.stack import Stack
from anyformer.cli.main import main
from anyformer.core.errors import ConfigError, ResourceError
from anyformer.core.layer import Part
from anyformer.core.modality import Modality
from anyformer.core.model import Model
from anyformer.core.spec import ModelSpec, NormSpec, Site, spec
from anyformer.embeddings.patches import Patches
from anyformer.feedforward.experts import Experts
from anyformer.feedforward.gated import Gated
from anyformer.feedforward.mlp import MLP
from anyformer.heads.classify import Classify
from anyformer.laws.case import redraw
from anyformer.memory.recurrent import RMT
from anyformer.models import onnx_export
from anyformer.models.onnx_export import export_onnx
from anyformer.models.onnx_plans import THEIRS
from anyformer.patterns.base import parse
from anyformer.patterns.full import Full
from anyformer.positions.rotary import Rotary
from anyformer.positions.segments import Segments
from anyformer.positions.t5 import T5
from anyformer.runs.files import Disk

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}
SIZES = ((1, 1), (3, 17), (2, 2))  # none of which is traced
Given = dict[str, NDArray[Any]]


class Folder:
    """What a reader has who knows neither anyformer nor torch."""

    def __init__(self, path: Path) -> None:
        self.about = json.loads((path / "anyformer.json").read_text("utf-8"))
        self.graphs = {name: runtime.InferenceSession(path / name) for name in self.about["graphs"]}
        assert {file.name for file in path.glob("*.onnx")} == set(self.graphs)

    def __call__(self, graph: str, given: Given) -> Given:
        told = self.about["graphs"][graph]
        out = self.graphs[graph].run(None, given)
        for port, value in zip(told["outputs"], out, strict=True):
            fixed = [a == b for a, b in zip(value.shape, port["shape"], strict=True) if isinstance(b, int)]
            assert all(fixed) and value.dtype == port["dtype"], port
        return dict(zip([port["name"] for port in told["outputs"]], out, strict=True))

    def start(self, rows: int) -> Given:
        """The past before the first token."""
        sizes = {"batch": rows, "past": 0}
        return {
            port["name"]: np.broadcast_to(
                np.array(port["start"], port["dtype"]), [sizes.get(size, size) for size in port["shape"]]
            )
            for port in self.about["graphs"]["decoder_step.onnx"]["inputs"]
            if "start" in port
        }

    def steps(self, given: Given, past: Given) -> NDArray[Any]:
        """What is answered to a text that comes in pieces."""
        length, outs = given["input_ids"].shape[1], []
        single = self.about["graphs"]["decoder_step.onnx"]["inputs"][0]["shape"][1] == 1
        cuts = list(range(length)) if single else sorted({0, min(3, length - 1), length // 2})
        for at, until in zip(cuts, [*cuts[1:], length], strict=True):
            part = {name: value[:, at:until] for name, value in given.items()}
            out, *_ = (answer := self("decoder_step.onnx", {**part, **past})).values()
            past = past | {n.replace("present", "past", 1): x for n, x in answer.items() if n.startswith("present")}
            outs.append(out)
        return np.concatenate(outs, 1)


def numpy(given: dict[str, Tensor]) -> Given:
    return {name: value.numpy() for name, value in given.items()}


def text(model: Model, rows: int, length: int, vocabulary: int | None) -> dict[str, Tensor]:
    """Random tokens, of texts of several lengths, with padding on either side."""
    generator = torch.Generator().manual_seed(rows * length)
    real = torch.ones(rows, length, dtype=torch.long)
    if rows > 1 and length > 3:
        real[0, -length // 3 :] = 0
        real[1, : length // 4] = 0
    ids = torch.randint(vocabulary or 1, (rows, length), generator=generator)
    labels = {THEIRS.get(name, name): torch.zeros_like(ids) for name in model.labels}
    if "segment" in model.labels:
        labels["token_type_ids"] = (torch.arange(length) > length // 2).long().expand(rows, -1).clone()
    return {"input_ids": ids, "attention_mask": real, **labels}


def same(ours: Tensor, theirs: NDArray[Any], real: Tensor | None = None) -> None:
    theirs = torch.from_numpy(theirs)
    if real is not None and ours.dim() == 3:
        ours, theirs = ours[real > 0], theirs[real > 0]
    torch.testing.assert_close(theirs, ours, **CLOSE)


def told(model: Model, given: dict[str, Tensor], **more: Any) -> Tensor:
    """Our own answer."""
    labels = {name: given[THEIRS.get(name, name)] for name in model.labels}
    return model(given["input_ids"], real=given["attention_mask"] > 0, labels=labels, **more)


@torch.no_grad()
def check(model: Model, path: Path, sizes: Iterable[tuple[int, int]] = SIZES) -> Folder:
    """Exports a model and holds onnxruntime to its numbers."""
    export_onnx(model, path)
    folder = Folder(path)
    if isinstance(model, EncoderDecoderModel):
        check_translator(model, folder, sizes)
        return folder
    if isinstance(model, TwoTowersModel):
        given = text(model, 3, 11, model.spec.vocabulary)
        same(told(model, given), folder("model.onnx", numpy(given))["text_embeds"])
        check_pixels(model.image, folder, "image.onnx")
        return folder
    if isinstance(model.embedding, Modality):
        check_pixels(model, folder, "model.onnx")
        return folder
    for rows, length in sizes:
        given = text(model, rows, length, model.spec.vocabulary)
        want, real = told(model, given), given["attention_mask"]
        if "model.onnx" in folder.graphs:
            same(want, *folder("model.onnx", numpy(given)).values(), real)
        if "decoder_step.onnx" in folder.graphs:
            same(want, folder.steps(numpy(given), folder.start(rows)), real)
    return folder


def check_translator(model: EncoderDecoderModel, folder: Folder, sizes: Iterable[tuple[int, int]]) -> None:
    (entry, *_) = folder.graphs["encoder.onnx"].get_inputs()
    for rows, length in sizes:
        if entry.name == "input_features":
            source = {entry.name: torch.randn(rows, *entry.shape[1:], generator=torch.Generator().manual_seed(rows))}
            read, real = model.encode(source[entry.name]), None
        else:
            lengths = torch.arange(rows) % 3 + length
            real = (torch.arange(length + 2) < lengths[:, None]).long()
            source = {**text(model, rows, length + 2, model.source_vocabulary), "attention_mask": real}
            read = model.encode(source["input_ids"], lengths)
        answer, given = folder("encoder.onnx", numpy(source)), text(model, rows, length, model.spec.vocabulary)
        same(read.vectors, answer.pop("last_hidden_state"), real)
        want = told(model, given, sources={"source": read})
        same(want, folder.steps(numpy(given), folder.start(rows) | answer), given["attention_mask"])


def check_pixels(model: Model, folder: Folder, graph: str) -> None:
    (port,) = folder.graphs[graph].get_inputs()
    for rows in (1, 3):
        pixels = torch.randn(rows, *port.shape[1:], generator=torch.Generator().manual_seed(rows))
        same(model(pixels), *folder(graph, {port.name: pixels.numpy()}).values())


def drawn(declared: ModelSpec) -> Model:
    return redraw(declared.build(dtype=torch.float32), 0.5)


MLP20 = MLP(hidden=20)
BOTH_WAYS = Stack(blocks=(Block(mixer=Softmax(heads=4, pattern=Full()), ff=MLP20),))


def test_a_decoder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whole, and in pieces of any length, with a past that is as long as its pattern can see."""
    pattern = parse("causal & (sinks(2) | window(3))")
    window = Softmax(heads=4, kv_heads=2, pattern=pattern, position=Rotary(), bias=True)
    model = drawn(Decoder(width=16, vocabulary=67, body=Stack(blocks=(Block(mixer=window, ff=Gated(hidden=20)),))))
    folder = check(model, tmp_path / "out")
    assert capfd.readouterr() == ("", ""), "nobody is told how it was done"
    told = {port["name"]: port for port in folder.about["graphs"]["decoder_step.onnx"]["inputs"]}
    assert told["input_ids"]["shape"] == ["batch", "length"]
    assert told["past.body.0.mixer.values.0"]["shape"] == ["batch", 6, 2, 4], "sinks, a window and a junk slot"
    assert told["past.body.0.mixer.where.time"]["start"] == -1
    weights = [outside(tmp_path / "out" / name) for name in folder.graphs]
    assert weights[0] and weights[0] == weights[1], "one file of weights for both graphs"
    assert weights[0].keys() <= dict(model.named_parameters()).keys()
    written = b"".join((tmp_path / "out" / name).read_bytes() for name in folder.graphs)
    assert str(Path(af.__file__).parent).encode() not in written, "where our code lies is nobody's business"


def outside(path: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """Which weights of a graph lie in another file, and where."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {t.name: tuple((x.key, x.value) for x in t.external_data) for t in tensors if t.external_data}


@pytest.mark.slow
def test_who_computes_something_else_for_each_length_goes_token_by_token(tmp_path: Path) -> None:
    model = drawn(Decoder(width=16, vocabulary=23, body=Stack(blocks=(Block(mixer=Linear(heads=2), ff=MLP20),))))
    folder = check(model, tmp_path / "out", ((1, 1), (3, 8)))
    assert folder.graphs.keys() == {"decoder_step.onnx"}
    assert folder.about["graphs"]["decoder_step.onnx"]["inputs"][0]["shape"] == ["batch", 1]


@pytest.mark.slow
def test_a_memory_with_experts(tmp_path: Path) -> None:
    """Memory vectors begin as numbers of their own; experts gather their tokens."""
    mixer, experts = Softmax(heads=4, kv_heads=2, sink=0.5), Experts(count=3, top=2, expert=MLP20)
    memory = RMT(inner=Stack(blocks=(Block(mixer=mixer, ff=experts),)), segment=3, slots=2)
    folder = check(drawn(Decoder(width=16, vocabulary=23, body=memory)), tmp_path / "out", ((1, 1), (3, 8)))
    assert folder.graphs.keys() == {"decoder_step.onnx"}
    assert folder.start(2)["past.body.memory"].shape == (2, 2, 16)


def test_an_encoder_with_segments(tmp_path: Path) -> None:
    body = Stack(blocks=(Block(mixer=Softmax(heads=4, pattern=Full(), position=T5(both_ways=True)), ff=MLP20),))
    parts = {"labels": ("segment",), "position": Segments(count=2), "head": Classify(labels=("a", "b", "c"))}
    folder = check(drawn(Encoder(width=16, vocabulary=23, body=body, **parts)), tmp_path / "out")
    (told,) = folder.about["graphs"].values()
    assert [port["name"] for port in told["inputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [(port["name"], port["shape"]) for port in told["outputs"]] == [("logits", ["batch", 3])]


def test_an_image(tmp_path: Path) -> None:
    patches = Patches(size=3, image=(6, 9), channels=2, class_token=False)
    check(drawn(Encoder(width=16, embedding=patches, body=BOTH_WAYS)), tmp_path / "out")


def test_a_translator(tmp_path: Path) -> None:
    """The encoder gives what cross attention reads; the rest begins as the steps are told."""
    decoder = Stack(blocks=(Block(mixer=Softmax(heads=4), cross=Cross(heads=4, kv_heads=2), ff=MLP20),))
    model = drawn(EncoderDecoder(width=16, vocabulary=23, encoder=BOTH_WAYS, decoder=decoder))
    folder = check(model, tmp_path / "out", ((1, 1), (3, 5)))
    told = folder.about["graphs"]["decoder_step.onnx"]
    assert told["inputs"][2]["shape"] == ["batch", "past", 4, 4]
    assert told["outputs"][1]["shape"] == ["batch", "length + past", 4, 4]
    assert folder.graphs.keys() == {"encoder.onnx", "decoder_step.onnx"}


@spec
class Odd(NormSpec):
    """A function that ONNX has no words for, or an answer that depends on how many rows there are."""

    counts: bool

    def build(self, at: Site) -> OddPart:
        return OddPart(self, at)


class OddPart(Part):
    def __init__(self, spec: Odd, at: Site) -> None:
        super().__init__(at)
        self.counts = spec.counts

    def forward(self, x: Tensor) -> Tensor:
        return x * len(x) if self.counts else torch.special.bessel_j0(x)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (False, "body.norm: ONNX has no words for prims.bessel_j0.default"),
        (True, "body.norm: what it computes depends on the batch, which has to stay free"),
    ],
)
def test_the_part_that_cannot_be_said_is_named(counts: bool, said: str, tmp_path: Path) -> None:
    model = drawn(Encoder(width=8, vocabulary=9, body=Stack(blocks=BOTH_WAYS.blocks, norm=Odd(counts=counts))))
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        export_onnx(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [], "nothing is written"


class Crammed(Disk):
    """A disk on which nothing fits."""

    def write(self, path: Path, chunks: Iterable[Any]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "DISK", Crammed())
    monkeypatch.setattr(onnx_export, "graphs_of", lambda model: ({}, []))
    with pytest.raises(ResourceError, match="No space left"):
        export_onnx(drawn(Encoder(width=8, vocabulary=9, body=BOTH_WAYS)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"^onnx is not installed; try: pip install 'anyformer\[onnx\]'$"):
        export_onnx(drawn(Encoder(width=8, vocabulary=9, body=BOTH_WAYS)), tmp_path / "out")


SAMPLE = (
    "bloom",
    "clip",
    "falcon",
    "gemma2",
    "gpt2",
    "gpt_oss",
    "llama yarn",
    "mixtral window",
    "mpnet masked",
    "bert span",
    "t5",
    "vit",
    "whisper",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_published_types(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    check(ours(case, stored(case)).float(), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.needs_shared
@pytest.mark.usefixtures("beside_stories")
def test_the_loop_of_the_page_writes_the_same_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`docs/checkpoints.md`: the command, then the Python, which knows neither anyformer nor torch."""
    page = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text("utf-8")
    section = page.partition("## ONNX\n")[2].partition("\n## ")[0]
    (command,) = re.findall(r"^\$ anyformer (.*)$", section, re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert "anyformer." not in code.replace("anyformer.json", "") and "torch" not in code
    assert main(["generate", "stories260K", "--greedy", "--tokens", "131"]) == 0
    story = capsys.readouterr().out
    assert main(command.split()) == 0
    assert capsys.readouterr().out == "exported\n"
    exec(code, {})
    assert capsys.readouterr().out == story

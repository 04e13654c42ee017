"""Padding is nothing: wherever it stands, and whatever stands in it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from anyformer.laws.broken import agree, finite, hold
from anyformer.laws.case import Case, Text, learnt, seeded, ways
from anyformer.laws.cases import with_patterns
from anyformer.patterns.documents import Documents


@torch.no_grad()
def padding(case: Case) -> None:
    """Padding left, right or in between changes nothing."""
    length, place = 17, torch.arange(17)
    lengths = torch.tensor([length, 5, 11])
    holes = torch.rand(3, length, generator=seeded(6)) < 0.6
    holes[:, 3] = True
    for side, real in {
        "right": place < lengths[:, None],
        "left": place >= (length - lengths)[:, None],
        "holes": holes,
    }.items():
        text = case.text(length).laid(real)
        got = [case.whole(text)]
        if side != "holes":
            labels = dict(text.labels)
            got.append(case.model(text.ids, lengths=lengths, side=side, labels=labels, sources=case.sources()))
        for index, alone in enumerate(case.alone(text)):
            for out in got:
                agree(case.of_row(out, index, real), alone, f"padding {side}, row {index}")


@torch.no_grad()
def packed(case: Case) -> None:
    """Texts packed into one row, told apart by the label `document`, give what each gives alone."""
    spec = with_patterns(case.spec, lambda pattern: pattern & Documents())
    spec = dataclasses.replace(spec, labels=tuple(sorted({*case.spec.labels, "document"})))
    packing = case.changed(spec)
    text = packing.text(26)
    ends = [7, 8, 19, 26]  # a text of one token, texts longer than a segment or a window
    document = torch.bucketize(torch.arange(26), torch.tensor(ends), right=True).expand(3, 26)
    text = Text(text.ids, {**text.labels, "document": document})
    parts = [text.between(first, last) for first, last in zip([0, *ends], ends, strict=False)]
    want = torch.cat([packing.whole(part) for part in parts], 1)
    agree(packing.whole(text), want, f"texts that end at {ends}")
    if case.has_state:
        for seed, way in enumerate(ways(26)):
            cuts = packing.cuts(26, seed)
            got, _ = packing.feed(text, packing.state(way), cuts)
            agree(got, want, f"texts that end at {ends}, calls of {cuts} tokens, {way}")


def blank(case: Case) -> None:
    """A row of padding alone has finite outputs and gradients, and leaves the other rows as they are."""
    text = case.text(9)
    real = torch.ones(3, 9, dtype=torch.bool)
    real[1] = False
    text = Text(text.ids, text.labels, real)
    names, parameters = zip(*learnt(case.model).items(), strict=True)
    out = case.whole(text)
    finite(out, "outputs")
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(out.square().sum(), parameters, allow_unused=True)
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is not None:
            finite(gradient, f"gradient of {name}")
    hold(any(gradient is not None for gradient in gradients), "no parameter has a gradient")
    with torch.no_grad():
        for index in (0, 2):
            agree(out[index], case.whole(text.row(index), [index])[0], f"row {index} beside a row of padding")

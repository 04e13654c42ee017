"""`anyformer chat`: a conversation, a line from standard input for each turn."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from anyformer.cli.drawing import MinP, Temperature, TopK, TopP, drawn
from anyformer.cli.frame import Frame, is_terminal
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, fetched, how, report

EXAMPLES = (
    'anyformer chat runs/tuned --system "You are brief."',
    "anyformer chat base --template chatml --greedy < questions.txt",
)
PROMPT = "> "


def chat(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder, or a published checkpoint.", metavar="RUN")],
    template: Annotated[
        str | None, Option(help="How turns are written: a shipped name, chatml, or a file; else as the model says.")
    ] = None,
    system: Annotated[str, Option(help="What the model is told before all else.")] = "",
    tokens: Annotated[int, Option(min=1, help="How many tokens an answer may have.")] = 512,
    greedy: Annotated[bool, Option("--greedy", help="The likeliest token, always.")] = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Annotated[float | None, Option(help="Above 1: less of what was said.")] = None,
    seed: Annotated[int, Option(help="The same seed says the same.")] = 0,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Answer every line of standard input, each in the light of all before, until the input ends.

    Blank lines are passed over. What reads like a special token in a line is plain text.
    """
    frame = Frame.of(ctx)
    chosen = drawn(greedy, temperature, top_k, top_p, min_p)
    opening = how(frame, best, set, allow, dtype)
    run = fetched(frame, run)
    if surgery is not None:
        report(frame, run, opening)
        return
    from anyformer.generation.chat import Chat
    from anyformer.generation.published import published_settings
    from anyformer.generation.sampling import Sampling
    from anyformer.models.load import load

    found = published_settings(run, tuple(allow or ()))
    known = Sampling() if found is None else found.sampling
    penalty = known.repetition_penalty if repetition_penalty is None else repetition_penalty
    likeliest = greedy or (known.greedy and not chosen)
    sampling = replace(known, **chosen, greedy=likeliest, repetition_penalty=penalty)
    talk = Chat(load(run, **opening), template=template, system=system, sampling=sampling, seed=seed)
    for line in _lines():
        answer = talk.say(line, tokens, show=None if frame.json else lambda piece: frame.put(piece, end=""))
        if frame.json:
            said = talk.talk.last
            known = {"tokens": len(said.ids), "ended": said.ended or "length"}
            frame.put_json({"message": line, "text": answer, **known})
        else:
            frame.put("")


def _lines() -> Iterator[str]:
    """What somebody says; asked for where they sit at a terminal."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stdout):
        yield from (text for line in sys.stdin if (text := line.strip()))
        return
    with suppress(ImportError):
        import readline  # noqa: F401  lines can then be edited
    with suppress(EOFError):
        while True:
            if text := input(PROMPT).strip():
                yield text

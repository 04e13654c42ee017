"""`anyformer generate`: text from a run, as it is made."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Context, Option

from anyformer.cli.drawing import MinP, Temperature, TopK, TopP, drawn, options
from anyformer.cli.frame import Frame
from anyformer.cli.opening import Allow, Best, Dtype, Set, Surgery, fetched, how, report
from anyformer.core.errors import ConfigError

if TYPE_CHECKING:
    from anyformer.generation.generate import Writing

    Write = Callable[..., list[list[Writing]]]

EXAMPLES = (
    'anyformer generate runs/demo "The " --tokens 200',
    "anyformer generate runs/multi30k - --beams 4 < english.txt > german.txt",
)
TOKENS = 200
LINES = 32  # of standard input that are translated together


def generate(
    ctx: Context,
    run: Annotated[
        Path,
        Argument(
            help="A run folder, or a published checkpoint, whose generation_config.json says what no option says.",
            metavar="RUN",
        ),
    ],
    prompt: Annotated[
        str,
        Argument(
            help="The text to go on from, or to translate; - reads standard input, with an encoder each line alone; "
            "none: the begin token."
        ),
    ] = "",
    tokens: Annotated[
        int | None, Option(min=0, help="How many tokens at most; else 200, with an encoder 50 more than the source.")
    ] = None,
    greedy: Annotated[
        bool, Option("--greedy", help="The likeliest token, always; so it is with an encoder, unless it is to draw.")
    ] = False,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Annotated[
        float | None, Option(help="Above 1: less of what prompt and text have; of beams as well.")
    ] = None,
    presence_penalty: Annotated[float, Option(help="Off the logit of what the text has.")] = 0.0,
    frequency_penalty: Annotated[float, Option(help="Off that logit for each time the text has it.")] = 0.0,
    beams: Annotated[int | None, Option(help="Look for the likeliest text with so many beams; draw nothing.")] = None,
    length_penalty: Annotated[
        float | None, Option(help="Of beams: 0 favours short texts, more longer ones; else 0.6.")
    ] = None,
    early_stopping: Annotated[
        Literal["true", "false", "never"] | None,
        Option(
            help="Beams as Transformers compares them, and when it stops: at K texts, soon, or when none can do better."
        ),
    ] = None,
    min_tokens: Annotated[int | None, Option(min=0, help="No text ends with fewer.")] = None,
    no_repeat: Annotated[int | None, Option(min=1, help="So many tokens never come twice in prompt and text.")] = None,
    samples: Annotated[int, Option(min=1, help="Texts for each prompt; of beams the best ones.")] = 1,
    stop: Annotated[list[str] | None, Option(help="End before this text, any number of times.")] = None,
    seed: Annotated[int, Option(help="The same seed writes the same text.")] = 0,
    best: Best = False,
    set: Set = None,
    allow: Allow = None,
    dtype: Dtype = None,
    surgery: Surgery = None,
) -> None:
    """Write text after a prompt, or make one of a source, piece by piece as it is made."""
    frame = Frame.of(ctx)
    of_what_is_written = {"--presence-penalty": presence_penalty, "--frequency-penalty": frequency_penalty}
    comparing = {"--length-penalty": length_penalty, "--early-stopping": early_stopping}
    chosen = drawn(greedy, temperature, top_k, top_p, min_p)
    draws = options(chosen)
    changes_logits = [name for name, value in of_what_is_written.items() if value != 0]
    compares = [name for name, value in comparing.items() if value is not None]
    if beams is not None and (unused := ["--greedy"] * greedy + draws + changes_logits):
        raise ConfigError(f"--beams looks for the likeliest text and draws none: leave out {' and '.join(unused)}")

    from anyformer.architectures.encoder_decoder import EncoderDecoderModel
    from anyformer.generation.beam import Beams, PublishedBeams
    from anyformer.generation.published import published_settings
    from anyformer.generation.rules import Rules
    from anyformer.generation.sampling import Sampling

    run = fetched(frame, run)
    found = published_settings(run, tuple(allow or ()))
    penalty = {} if repetition_penalty is None else {"repetition_penalty": repetition_penalty}
    sampling = replace(
        Sampling() if found is None else found.sampling,
        **penalty,
        **chosen,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
    )
    compared = {**penalty, **({} if length_penalty is None else {"length_penalty": length_penalty})}
    search = None
    if beams is not None:
        compared["beams"] = beams
    if beams is not None or (found and found.beams.beams > 1 and not (greedy or draws or changes_logits)):
        search = replace(found.beams if found else Beams() if early_stopping is None else PublishedBeams(), **compared)
    elif compares:
        raise ConfigError(f"{compares[0]} is what beams are compared by: give --beams too, such as --beams 4")
    if isinstance(search, PublishedBeams) and early_stopping is not None:
        search = replace(search, early_stopping={"true": True, "false": False, "never": "never"}[early_stopping])
    least = {} if min_tokens is None else {"min_tokens": min_tokens}
    once = {} if no_repeat is None else {"no_repeat": no_repeat}
    rules = replace(Rules() if found is None else found.rules, **least, **once)
    opening = how(frame, best, set, allow, dtype)
    if surgery is not None:
        report(frame, run, opening)
        return
    from anyformer.generation.generate import write_all
    from anyformer.generation.prompts import start, tokenizer_of
    from anyformer.models.load import load

    model = load(run, **opening)
    with_encoder = isinstance(model, EncoderDecoderModel)
    likeliest = not draws and (with_encoder if found is None else found.sampling.greedy)
    sampling = replace(sampling, greedy=greedy or likeliest)
    text = prompt
    if prompt == "-" and not with_encoder:
        text = sys.stdin.read()
    if tokens is None and found is not None:
        tokens = found.most(1 if with_encoder else len(start(tokenizer_of(model), text)))
    write = partial(
        write_all,
        model,
        tokens=TOKENS if tokens is None and not with_encoder else tokens,
        sampling=None if search else sampling,
        beams=search,
        rules=None if rules == Rules() else rules,
        stop=stop or (found.stop if found else ()),
        samples=samples,
    )
    if with_encoder and prompt == "-":
        by_line(frame, sys.stdin, write, seed, samples)
        return
    head = "" if with_encoder else text
    if frame.json or samples > 1:
        for number, written in enumerate(write([text], seed=seed)[0]):
            put(frame, text, head, written, seed + number)
        return

    def show(piece: str) -> None:
        nonlocal head
        frame.put(head + piece, end="")
        head = ""  # shown with the first piece: nothing is, if this prompt cannot be gone on from

    write([text], seed=seed, show=show)
    frame.put(head)


def by_line(frame: Frame, lines: Iterable[str], write: "Write", seed: int, samples: int) -> None:
    """Every line is a source of its own, and its text one line; a blank line stays blank."""
    lines, done = iter(lines), 0
    while batch := [line.rstrip("\r\n") for line in islice(lines, LINES)]:
        sources = [line for line in batch if line.strip()]
        found = iter(write(sources, seed=seed + done * samples) if sources else [])
        for line in batch:
            if not line.strip():
                frame.put_json({"prompt": line, "text": ""}) if frame.json else frame.put("")
                continue
            for number, written in enumerate(next(found)):
                written.text = " ".join(written.text.splitlines())
                put(frame, line, "", written, seed + done * samples + number)
            done += 1


def put(frame: Frame, prompt: str, head: str, written: "Writing", seed: int) -> None:
    """One text. head: what is shown before it."""
    if frame.json:
        known = {"tokens": len(written.ids), "ended": written.ended, "score": written.score, "seed": seed}
        frame.put_json({"prompt": prompt, "text": written.text, **known})
    else:
        frame.put(head + written.text)

"""`anyformer generate`: text from a run, as it is made."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame

EXAMPLES = (
    'anyformer generate runs/demo "The " --tokens 200',
    "echo 'ROMEO:' | anyformer generate runs/shakespeare - --temperature 0.8 --top-k 20 --seed 7",
)


def generate(
    ctx: Context,
    run: Annotated[Path, Argument(help="A run folder.", metavar="RUN")],
    prompt: Annotated[
        str, Argument(help="The text to go on from; - reads standard input; none: the begin token.")
    ] = "",
    tokens: Annotated[int, Option(min=0, help="How many tokens at most.")] = 200,
    greedy: Annotated[bool, Option("--greedy", help="The likeliest token, always.")] = False,
    temperature: Annotated[float, Option(help="Below 1 is safer, above 1 bolder.")] = 1.0,
    top_k: Annotated[int | None, Option(help="Draw only from the k likeliest.")] = None,
    top_p: Annotated[float | None, Option(help="Draw only from the fewest that reach this probability.")] = None,
    seed: Annotated[int, Option(help="The same seed writes the same text.")] = 0,
    best: Annotated[bool, Option("--best", help="The weights that did best on held-out text, not the last.")] = False,
    set: Annotated[list[str] | None, Option(help="KEY=VALUE in the model, any number of times.")] = None,
) -> None:
    """Write text after a prompt, piece by piece as it is made."""
    frame = Frame.of(ctx)
    text = sys.stdin.read() if prompt == "-" else prompt
    from anyformer.generation.sampling import Sampling
    from anyformer.recipes.read import parse_set

    sampling = Sampling(greedy=greedy, temperature=temperature, top_k=top_k, top_p=top_p)
    changes = dict(parse_set(change) for change in set or [])
    device = frame.torch_device()
    from anyformer.generation.generate import generate as write
    from anyformer.models.load import load

    model = load(run, changes, device=device, best=best)
    if frame.json:
        frame.put_json({"prompt": text, "text": write(model, text, tokens=tokens, sampling=sampling, seed=seed)})
        return

    waiting = text  # shown with the first piece: nothing is, if this prompt cannot be gone on from

    def show(piece: str) -> None:
        nonlocal waiting
        frame.put(waiting + piece, end="")
        waiting = ""

    write(model, text, tokens=tokens, sampling=sampling, seed=seed, show=show)
    frame.put(waiting)

"""`anyformer plan`: what a recipe costs, at any scale, before anything is trained."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from anyformer.cli.frame import Frame

if TYPE_CHECKING:
    from anyformer.recipes.schema import Recipe
    from anyformer.training.plan import Plan

EXAMPLES = (
    "anyformer plan demo",
    "anyformer plan demo --set model.width=8192 --set training.checkpointing=true --json",
)
PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan(
    ctx: Context,
    recipe: Annotated[str, Argument(help="A recipe file, or the name of one that ships.", metavar="RECIPE")],
    set: Annotated[list[str] | None, Option(help="KEY=VALUE in the recipe, any number of times.")] = None,
) -> None:
    """Parameters, FLOPs, memory and minutes of a recipe; a few steps are made to see how fast they are here."""
    frame = Frame.of(ctx)
    from anyformer.recipes.read import read

    settled = read(recipe, set or [])  # judged before torch is imported, where it can be
    device = frame.torch_device(settled.training.device)
    from anyformer.training.plan import plan as made

    result = made(settled, device, frame.threads)
    for note in result.notes:
        frame.say(note)
    if frame.json:
        frame.put_json(asdict(result))
    else:
        frame.put_table(rows(result, settled))


def rows(plan: "Plan", recipe: "Recipe") -> list[tuple[str, ...]]:
    """The plan as (what, how much, how that is meant)."""
    training, passes = recipe.training, 4 if recipe.training.checkpointing else 3
    known = [plan.weights, plan.gradients, plan.optimizer, plan.ema, plan.activations or 0]
    state = f"a token; {short(plan.cache)}B for a text of {plan.row:,}" if plan.cache is not None else ""
    share = f"{plan.mfu:.0%} of the {short(plan.peak)}FLOP/s of a matrix product on {plan.device}"
    return [
        ("parameters", f"{plan.parameters:,}", f"{plan.outside_tables:,} outside tables of words, positions and such"),
        *([("trained", f"{plan.trained:,}", "the others are frozen")] if plan.trained < plan.parameters else []),
        ("FLOPs a token", short(plan.flops_a_token), f"{passes} times a forward pass over {plan.row:,} tokens"),
        ("weights", f"{short(plan.weights)}B", "float32"),
        ("gradients", f"{short(plan.gradients)}B", "float32"),
        ("optimiser", f"{short(plan.optimizer)}B", recipe.to_dict()["optimizer"]["kind"]),
        *([("running mean", f"{short(plan.ema)}B", "training.ema")] if plan.ema else []),
        ("activations", size(plan.activations), f"kept for the backward pass, of {training.batch} rows at a time"),
        ("together", f"{short(sum(known))}B", "what is only passing through comes on top"),
        ("cache", size(plan.cache_a_token), state or "none: the model reads whole texts"),
        ("step", f"{plan.tokens_a_step:,} tokens", f"{short(plan.flops_a_token * plan.tokens_a_step)}FLOPs"),
        ("budget", f"{plan.steps:,} steps", f"{short(plan.tokens)} tokens, {short(plan.flops)}FLOPs"),
        ("speed", f"{short(plan.tokens_per_s)}tokens/s", f"{'measured' if plan.measured else 'assumed'}: {share}"),
        ("time", lasting(plan.minutes), "evaluation not counted"),
    ]


def size(count: float | None) -> str:
    """Bytes, where they are known."""
    return "-" if count is None else f"{short(count)}B"


def short(number: float) -> str:
    """Three digits and a prefix, ready for a unit: 5922816 is '5.92 M'."""
    for step, prefix in PREFIXES:
        if number >= 0.9995 * step:
            return f"{number / step:.3g} {prefix}"
    return f"{number:.3g} "


def lasting(minutes: float) -> str:
    """A time in the unit that people would say it in."""
    for length, unit in ((365.25 * 1440, "years"), (1440, "days"), (60, "hours")):
        if minutes >= 2 * length:
            return f"{minutes / length:,.3g} {unit}"
    return f"{minutes:.2g} minutes" if minutes < 1 else f"{minutes:.0f} minutes"

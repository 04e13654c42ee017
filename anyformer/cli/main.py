"""`anyformer VERB …`: the table of verbs, and what becomes of whatever a verb raises.

A verb is a function in its own file, imported when it is called; the file's EXAMPLES close its help.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple

import typer
from typer.core import TyperCommand
from typer.main import get_command

from anyformer import __version__
from anyformer.cli import exits
from anyformer.cli.frame import aligned, options


class Verb(NamedTuple):
    """Where a verb is written, and the line that the list of verbs has for it."""

    at: str
    help: str


VERBS = {
    "train": Verb("train:train", "Train a recipe, or go on with a run."),
    "predict": Verb("predict:predict", "Answer every line of a file: class, tags, span, number, vector."),
    "generate": Verb("generate:generate", "Write text with a run."),
    "chat": Verb("chat:chat", "Talk with a run, turn by turn."),
    "embed": Verb("embed:embed", "Make a vector of every line of a file, to compare meanings by."),
    "evaluate": Verb("evaluate:evaluate", "Measure a run: loss, perplexity, bits per byte, with intervals."),
    "convert": Verb("convert:convert", "Take checkpoints in and out: Hugging Face folders, GGUF files."),
    "plan": Verb("plan:plan", "Say what a recipe costs, at any scale, before anything is trained."),
    "bench": Verb("bench:bench", "Measure speed and memory beside what else is installed."),
    "list": Verb("list:list_parts", "Show every registered part, with its paper."),
    "check": Verb("check:check", "Run the laws on anyone's part."),
    "doctor": Verb("doctor:doctor", "Say what this machine has, and what is slow and why."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait make a training step 8 times slower as soon as anything else wants the cores
    # (3.5 s against 0.4 s, measured on two), and no faster when nothing does. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    exits.tolerate_odd_text()
    try:
        with exits.termination(), exits.spoken_warnings():
            code = dispatch(words)
            exits.flush_output()  # a full disk or a closed pipe shows here, while it can still be told
            return code
    except BrokenPipeError:
        exits.abandon_output()
        return exits.BROKEN_PIPE
    except KeyboardInterrupt:
        return complain("interrupted", exits.INTERRUPTED)
    except Exception as error:
        if "--debug" in words:
            import traceback

            traceback.print_exc()
        code, message = exits.verdict(error)
        exits.rescue_output()
        return complain(message, code)


def dispatch(words: list[str]) -> int:
    """Answer what needs no verb, else hand the rest of the words to the verb."""
    if not words or words[0] in ("--help", "-h", "help"):
        print("\n".join(overview()))
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        print(f"anyformer {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        return complain(unknown(name), 2)
    command, shared = command_of(name)
    try:
        with command.make_context(f"anyformer {name}", rest) as ctx:
            ctx.obj = options(**{option: ctx.params.pop(option) for option in shared})
            command.invoke(ctx)
    except typer.Exit as leave:  # --help, or a verb that has said all there is to say
        return leave.exit_code
    return 0


def command_of(name: str) -> tuple[TyperCommand, list[str]]:
    """The verb as typer reads it from its signature, with the options that all verbs share, and their names."""
    file, _, function = VERBS[name].at.partition(":")
    module = import_module(f"anyformer.cli.{file}")
    examples = "\n".join(f"  {example}" for example in module.EXAMPLES)
    command = typed(getattr(module, function), epilog=f"\b\nExamples:\n{examples}")
    shared = typed(options).params
    command.params.extend(shared)
    return command, [param.name for param in shared]


def typed(function: Callable[..., object], epilog: str | None = None) -> TyperCommand:
    """One function as a command line of its own; plain text, since rich alone would cost half of `--help`."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=epilog, context_settings={"help_option_names": ["-h", "--help"]})(function)
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    return command


def overview() -> list[str]:
    """What `anyformer --help` prints; it imports no verb."""
    verbs = aligned([(f"  {name}", verb.help) for name, verb in VERBS.items()], None)
    return [
        "Usage: anyformer VERB [ARGUMENTS] [OPTIONS]",
        "",
        "Every transformer, from the same few parts: declare it, train it, swap one part by one word.",
        "",
        "Verbs:",
        *verbs,
        "",
        "Every verb has --device, --threads, --quiet, --json, --debug and --help.",
        "anyformer --version prints the version.",
        "",
        "Examples:",
        "  anyformer train demo --out runs/demo",
        '  anyformer generate runs/demo "The " --tokens 200',
    ]


def unknown(word: str) -> str:
    """What to say to a first word that is no verb."""
    if word.startswith("-"):
        return f"options come after a verb; {word!r} came first, as in: anyformer train demo {word}"
    near = get_close_matches(word.lower(), VERBS, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no verb {word!r}; {meant}the verbs are: {', '.join(VERBS)}"


def complain(message: str, code: int) -> int:
    """One line on standard error, where there still is one; the code is passed through."""
    with suppress(OSError):
        print(f"error: {exits.one_line(message)}", file=sys.stderr, flush=True)
    return code

"""The command line's frame: what a verb has for free, how it ends, and what is said when something is wrong."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter
from typer import Argument, Context

from anyformer import __version__
from anyformer.cli import exits
from anyformer.cli.frame import Frame, aligned
from anyformer.cli.list import split_docstring
from anyformer.cli.main import VERBS, Verb, command_of, main
from anyformer.core.errors import ConfigError, InputError, NumericalStop, ResourceError

ANYFORMER = (sys.executable, "-m", "anyformer")


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., None]], None]:
    """Registers a function as the verb `probe`."""

    def register(function: Callable[..., None]) -> None:
        module = ModuleType("anyformer.cli.probe")
        vars(module).update(probe=function, EXAMPLES=("anyformer probe", "anyformer probe --json"))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(VERBS, "probe", Verb("probe:probe", "Try the frame."))

    return register


def raising(error: BaseException) -> Callable[[Context], None]:
    def fail(ctx: Context) -> None:
        raise error

    return fail


def validation_error() -> Exception:
    try:
        TypeAdapter(dict[str, int]).validate_python({"heads": "four"})
    except ValueError as error:
        return error
    raise AssertionError("'four' is no number")


class OutOfMemoryError(RuntimeError):
    """Named as torch's own on accelerators."""


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("heads (5) must divide width (64)"), 2, "heads (5) must divide width (64)"),
        (InputError("a.txt: empty"), 3, "a.txt: empty"),
        (ResourceError("runs/a is in use"), 4, "runs/a is in use"),
        (NumericalStop("the loss is nan"), 5, "the loss is nan"),
        (ValueError("plain"), 2, "plain"),
        (validation_error(), 2, "heads: should be a valid integer"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 3, "encoding"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.txt"), 3, "a.txt: no such file or directory"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 3, "a: is a directory"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), 4, "a: permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", "w"), 4, "w: no space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 4, "quota"),
        (OSError(errno.EROFS, "Read-only file system"), 4, "read-only"),
        (MemoryError(), 4, "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            4,
            "not enough memory",
        ),
        (OutOfMemoryError("CUDA out of memory"), 4, "not enough memory"),
        (ModuleNotFoundError("No module named 'x'", name="sacrebleu.metrics"), 2, "pip install sacrebleu"),
        (ModuleNotFoundError("No module named 'x'", name="anyformer.nowhere"), 1, "internal error"),
        (KeyError("loss"), 1, "internal error: KeyError: 'loss'; --debug shows the traceback"),
        (RecursionError("too deep"), 1, "internal error: RecursionError"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_line_and_a_code(
    verb: Callable[[Callable[..., None]], None],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    says: str,
) -> None:
    verb(raising(error))
    assert main(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert says in err


def test_debug_shows_the_traceback_and_then_the_line(
    verb: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(raising(ConfigError("no")))
    assert main(["probe", "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "error: no"


def test_a_message_cannot_break_the_line_or_the_terminal() -> None:
    assert exits.one_line("two\n  lines") == "two; lines"
    assert exits.one_line("\x1b[2Jgone\x07") == r"\x1b[2Jgone\x07"
    assert exits.one_line("naïve − 東") == "naïve − 東"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "did you mean 'train'?"),
        (["Generate"], "did you mean 'generate'?"),
        (["xyzzy"], "the verbs are: train, predict, generate"),
        (["--quiet", "train"], "options come after a verb"),
        (["list", "--jsno"], "--json"),
        (["list", "atention"], "nearest: 'attention'"),
        (["list", "--threads", "0"], "threads"),
        (["list", "--threads", "many"], "threads"),
        (["list", "a", "b"], "unexpected extra argument"),
        (["generate"], "RUN"),
    ],
)
def test_usage_errors_say_what_is_meant(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert says in err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, row in VERBS.items():
        assert f"  {name} " in shown
        assert row.help in shown
    assert main([]) == 2
    assert capsys.readouterr().out == shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"anyformer {__version__}\n"


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_the_frame_and_ends_its_help_in_two_examples_that_parse(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--device", "--threads", "--quiet", "--json", "--debug"))
    examples = [line.strip() for line in shown.partition("Examples:")[2].splitlines() if line.strip()]
    assert len(examples) == 2
    for example in examples:
        words = (
            list(shlex.shlex(example, posix=True, punctuation_chars="|<>")) if "|" in example else shlex.split(example)
        )
        start = words.index("anyformer")
        words = words[start + 1 :]
        end = next((at for at, word in enumerate(words) if word[0] in "|<>"), len(words))
        assert words[0] == name
        command_of(name)[0].make_context(f"anyformer {name}", words[1:end])


def test_a_verb_gets_its_own_arguments_and_the_frame(
    verb: Callable[[Callable[..., None]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def probe(ctx: Context, word: Annotated[str, Argument()]) -> None:
        frame = Frame.of(ctx)
        assert frame == Frame(device="cpu", threads=3, quiet=True, json=True)
        frame.say("dropped")
        frame.warn("kept")
        frame.put_json({"word": word})

    verb(probe)
    assert main(["probe", "--json", "ü", "--device", "cpu", "--threads=3", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"word": "ü"}
    assert err == "warning: kept\n"


def test_json_never_says_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Frame().put_json(float("nan"))


def test_a_device_that_is_not_there_is_refused_and_named() -> None:
    assert str(Frame(device="cpu").torch_device()) == "cpu"
    for name in ("gpu", "meta:x", "hpu"):
        with pytest.raises(ConfigError, match=f"--device {name} cannot be used here"):
            Frame(device=name).torch_device()


def test_columns_are_aligned_and_cut_to_the_terminal() -> None:
    rows = [("a", "first"), ("long", "a sentence that goes on")]
    assert aligned(rows, None) == ["a     first", "long  a sentence that goes on"]
    assert aligned(rows, 12) == ["a     first", "long  a sen…"]
    assert aligned([], None) == []


def test_the_sentence_and_the_paper_are_told_apart() -> None:
    text = "ALiBi (Press et al. 2021): subtract a slope, e.g. 0.5, per\nhead. More.\n\nscore = q k"
    assert split_docstring(text) == ("ALiBi: subtract a slope, e.g. 0.5, per head", "Press et al. 2021")
    assert split_docstring("No paper (yet).") == ("No paper (yet)", "")


def test_list_shows_parts_for_people_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "positions"]) == 0
    alibi = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("  alibi "))
    assert "Press et al. 2022" in alibi
    assert "subtract a per-head slope times the distance" in alibi
    assert main(["list", "positions", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["table"] for row in rows} == {"positions"}
    assert next(row for row in rows if row["name"] == "alibi")["at"] == "anyformer.positions.alibi:ALiBi"


def test_the_schema_of_a_recipe_is_a_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    assert "anyformer.attention" in schema["$defs"]


def run(*words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([*ANYFORMER, *words], input=stdin, capture_output=True, text=True, env=env, timeout=60)


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*ANYFORMER, "list", "patterns"], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == exits.BROKEN_PIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full")
def test_a_full_disk_under_the_output_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ANYFORMER, "list", "patterns"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert "no space left" in done.stderr


def test_closed_output_and_a_poor_encoding_do_no_harm() -> None:
    closed = subprocess.run(["sh", "-c", f"{shlex.join(ANYFORMER)} list patterns >&-"], capture_output=True, timeout=60)
    assert closed.returncode == 0
    assert run("list", "no−table", PYTHONIOENCODING="ascii").stderr.startswith(
        r"error: there is no table 'no\u2212table'"
    )


def test_no_colour_where_nobody_watches() -> None:
    for words in (["--help"], ["list", "--help"], ["trian"]):
        done = run(*words, FORCE_COLOR="1", TERM="xterm-256color")
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_signals_unwind_and_have_their_codes(number: signal.Signals, code: int) -> None:
    program = """
import sys, time, types
from anyformer.cli.main import VERBS, Verb, main
from typer import Context
def probe(ctx: Context) -> None:
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("closed", flush=True)
sys.modules["anyformer.cli.probe"] = module = types.ModuleType("probe")
module.probe, module.EXAMPLES = probe, ()
VERBS["probe"] = Verb("probe:probe", "")
sys.exit(main(["probe"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
    assert out == "closed\n"
    assert child.returncode == code
    assert "Traceback" not in err


def test_doctor_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-compile", "--json", "--device", "cpu", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["device"] == "cpu"
    assert found["threads"].startswith("1 of ")
    assert found["compile"] == "not tried"
    assert "times the speed of float32" in found["bfloat16"]
    assert found["extra test"] == "installed"


@pytest.mark.slow
def test_doctor_tries_to_compile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["compile"].startswith(("works", "no, models run uncompiled"))


def test_help_and_import_are_quick() -> None:
    """CPU-seconds of a child: the bounds are the promise, 0.1 and 0.35, with room for a busy machine."""
    assert cost([sys.executable, "-c", "import anyformer"]) < 0.2
    assert cost([*ANYFORMER, "--help"]) < 0.5


def cost(command: list[str]) -> float:
    """The least CPU-seconds of three runs."""

    def once() -> float:
        before = os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    return min(once() for _ in range(3))

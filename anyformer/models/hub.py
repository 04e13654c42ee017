"""Models by their names on the hub of Hugging Face: `owner/name`, or `owner/name@revision`.

They are kept in the hub's own cache, which is all there is without a network. Only files that are read are fetched: of
the weights one form, no pickle unless it is asked for, and never code.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from anyformer.checkpoints.files import INDEX, SINGLE, read_json
from anyformer.checkpoints.pickles import BIN, BIN_INDEX
from anyformer.checkpoints.tokenizers import SENTENCEPIECE, SETTINGS, WHOLE
from anyformer.core.errors import InputError, ResourceError
from anyformer.core.tables import nearest
from anyformer.models import sentences
from anyformer.models.published import CONFIG
from anyformer.models.texts import GENERATION, TEMPLATE

PREFIX = "hf:"  # says that a name is the hub's
SMALL = (
    *(CONFIG, GENERATION, INDEX, WHOLE, SETTINGS, *SENTENCEPIECE, "vocab.json", "merges.txt", "vocab.txt"),
    TEMPLATE,
    *(sentences.MODULES, sentences.SETTINGS, sentences.GENERAL),
)


@dataclass(frozen=True)
class Name:
    """revision: a branch, a tag or a commit; None: the newest."""

    repository: str
    revision: str | None

    @staticmethod
    def of(path: Path) -> Name | None:
        """What a path that leads nowhere says as a name; None: nothing.

        Where the first part is a folder here, a path was meant, unless the prefix says otherwise.
        """
        found = re.fullmatch(rf"({PREFIX})?(\w[\w.-]*/\w[\w.-]*)(?:@(.+))?", path.as_posix(), re.ASCII)
        if found is None or (found[1] is None and path.parent.is_dir()):
            return None
        return Name(found[2], found[3])


def located(path: str | Path, *, pickles: bool = False, bar: bool = False) -> Path:
    """What is at a path, or else the folder in the hub's cache that has this name on the hub.

    pickles: fetch these where there are no safetensors. bar: show how much of it is here.
    """
    path = Path(path)
    if path.exists():
        return path
    name = Name.of(path)
    if name is not None:
        return _fetched(name, pickles, bar)
    near = nearest(path.name, [folder.name for folder in path.parent.glob("*") if folder.is_dir()])
    meant = Name.of(Path(f"{PREFIX}{path.as_posix()}"))
    hint = f"; {PREFIX}{path} asks the hub for it" if meant else ""
    raise InputError(f"{path}: there is no such folder{near}{hint}")


def pinned(path: str) -> str:
    """The same, but a name on the hub with the commit that it stands for now."""
    name = None if Path(path).exists() else Name.of(Path(path))
    return path if name is None else f"{PREFIX}{name.repository}@{located(path).name}"


def _fetched(name: Name, pickles: bool, bar: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]: of the library below, whichever it is
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(revision: str | None, *files: str) -> Path:
        with _bars(bar):
            return Path(snapshot_download(name.repository, revision=revision, allow_patterns=list(files)))

    what = f"{name.repository}@{name.revision}" if name.revision else name.repository
    try:
        bins = (BIN, BIN_INDEX) if pickles else ()
        folder = fetch(name.revision, *SMALL, *bins[1:])
        commit = folder.name  # from here on the same, whatever is published meanwhile
        fetch(commit, *_weights(folder, INDEX, SINGLE))
        if not (folder / SINGLE).is_file() and not (folder / INDEX).is_file() and bins:
            fetch(commit, *_weights(folder, bins[1], bins[0]))
    except GatedRepoError:
        raise InputError(
            f"{what}: its owner grants access: ask for it on {constants.ENDPOINT}/{name.repository}, then log in by "
            "`hf auth login`, or set HF_TOKEN"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"{what}: the hub has {name.repository}, but no such revision") from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{what}: there is no such folder, and no such name on the hub; one that is private takes `hf auth login`, "
            "or HF_TOKEN"
        ) from None
    except LocalEntryNotFoundError as error:
        cause = error.__cause__ or error
        said = f"it answered {cause.response.status_code}" if isinstance(cause, HfHubHTTPError) else _line(cause)
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"the hub gave none: {said}"
        raise InputError(
            f"{what}: there is no such folder, the cache {constants.HF_HUB_CACHE} lacks files of that name, and {why}; "
            "fetch it where there is a network, or name a folder that is here"
        ) from None
    except HFValidationError as error:
        raise InputError(f"{what}: is no name on the hub: {_line(error)}") from None
    except (HfHubHTTPError, HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{what}: no space left in {constants.HF_HUB_CACHE}; free some, or set HF_HOME to a folder elsewhere"
            ) from None
        raise InputError(f"{what}: could not be fetched: {_line(error)}") from None
    if (folder / CONFIG).is_file() and not any((folder / file).exists() for file in (SINGLE, INDEX, *bins)):
        raise InputError(
            f"{what}: has no weights as safetensors{'' if pickles else f'; `anyformer convert {what} OUT` makes some'}"
        )
    return folder


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """The library's progress bars, which are a setting of the whole process, shown or not."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not shown and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _weights(folder: Path, index: str, single: str) -> list[str]:
    """The files of weights that a folder's small files ask for, and those of its modules."""
    names = [single]
    if (folder / index).is_file():
        table = read_json(folder / index).get("weight_map")
        listed = table.values() if isinstance(table, dict) else ()
        names = sorted({name for name in listed if isinstance(name, str) and name.endswith(Path(single).suffix)})
    for module in sentences.modules(folder):
        if module.folder != folder:
            at = module.folder.relative_to(folder).as_posix()
            names += [f"{at}/{CONFIG}", f"{at}/{single}"]
    return list(map(escape, names))


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__

"""What every test has: one torch thread, repeatable draws, and a reason printed where it cannot run."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Set before anything imports torch, and inherited by subprocesses: the tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline, since a first call may compile; the same draws every time, since a red test must stay red.
settings.register_profile("anyformer", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("anyformer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what reads data that is not there, and say so."""
    folder = os.environ.get("ANYFORMER_DATA", "")
    if folder and Path(folder).is_dir():
        return
    skip = pytest.mark.skip(reason="ANYFORMER_DATA names no folder with the data that is not shipped")
    for item in items:
        if "needs_shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def shared() -> Path:
    """The folder of the data that is not shipped; for tests marked `needs_shared`."""
    return Path(os.environ["ANYFORMER_DATA"])


@pytest.fixture
def beside_stories(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is a new one, with the trained model stories260K in it, as the manual has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories260K").symlink_to(shared / "stories260K")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of data is cached away from the user's own cache, once for all tests of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

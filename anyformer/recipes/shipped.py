"""The recipes and presets that ship inside the package, by name."""

from pathlib import Path

from anyformer.core.errors import ConfigError, InputError
from anyformer.core.tables import nearest
from anyformer.recipes.yaml import decode, load_mapping

HERE = Path(__file__).parent
LARGEST = 10_000_000  # bytes: a recipe is a page, and a mistyped path may name anything


def recipes() -> dict[str, Path]:
    """Shipped recipes: name -> file."""
    return _yaml_files(HERE / "library")


def presets() -> dict[str, Path]:
    """Shipped models: name -> file."""
    return _yaml_files(HERE / "presets")


def find(name_or_path: str) -> Path:
    """The file of a recipe: a shipped name, or a path."""
    shipped, path = recipes(), Path(name_or_path)
    if name_or_path in shipped:
        return shipped[name_or_path]
    if path.is_dir():
        raise InputError(f"{path} is a folder; a recipe is a YAML file or one of: {', '.join(shipped)}")
    if path.exists():
        return path
    if path.suffix or path.name != name_or_path:
        raise InputError(f"there is no recipe file {name_or_path}")
    known = f"a file, or one of: {', '.join(shipped)}{nearest(name_or_path, shipped)}"
    raise ConfigError(f"there is no recipe {name_or_path!r}; allowed: {known}")


def find_preset(name: str) -> Path:
    """The file of a shipped model."""
    shipped = presets()
    if name not in shipped:
        raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(shipped)}{nearest(name, shipped)}")
    return shipped[name]


def read_file(path: Path) -> dict[str, object]:
    """A YAML file that is a mapping."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise InputError(f"{path} has more than {LARGEST} bytes; that is no recipe")
    return load_mapping(decode(data, str(path)), str(path))


def _yaml_files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}

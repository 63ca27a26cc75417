"""The files that ship with servsim, found by name from any working directory."""

from __future__ import annotations

import re
from pathlib import Path

from servsim.errors import ScenarioError, suggestion

__all__ = ["KINDS", "RELATIVE", "find", "folder", "is_path", "locate", "names", "shown"]

KINDS = ("devices", "drives", "engines", "hardware", "links", "models", "scenarios", "workloads")
"""What can be asked for: the folders of the catalogue, and ``hardware`` by what it is."""

RELATIVE = "a relative path counts from the scenario's file, with --set from the working directory"

_PACKAGE = Path(__file__).resolve().parent.parent
_HARDWARE = {"devices": ("cpu", "gpu"), "drives": ("ssd",), "links": ("link",)}  # by the ``kind`` in its file
_SINGULAR = {
    "devices": "device",
    "drives": "drive",
    "engines": "engine",
    "hardware": "hardware",
    "links": "link",
    "models": "model",
    "scenarios": "scenario",
    "workloads": "workload",
}
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonl", ".csv", ".parquet")


def folder(kind: str) -> Path:
    """Where the catalogue of a kind (one of :data:`KINDS`) lies.

    A checkout has its folders beside the package, an installed servsim inside it.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no catalogue; catalogues are {', '.join(KINDS)}")
    checkout, name = _PACKAGE.parent, "hardware" if kind in _HARDWARE else kind
    if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir():
        return checkout / name
    return _PACKAGE / "catalogue" / name


def names(kind: str) -> list[str]:
    """Every name in a catalogue, sorted; what lies in a subfolder is called ``papers/name``."""
    return sorted(name for name, path in _files(kind).items() if _is_one(path, kind))


def find(kind: str, name: str) -> Path:
    """The absolute path of a catalogue entry; any hardware is found, and whoever reads it says if it is another kind.

    Raises ScenarioError, without a place, that lists the known names of the kind.
    """
    files = _files(kind)
    if name not in files:
        raise ScenarioError(f"unknown {_SINGULAR[kind]} '{name}'", remedy=suggestion(name, names(kind)))
    return files[name]


def is_path(text: str) -> bool:
    """Whether ``text`` names a file rather than a catalogue entry: by a slash or a file's suffix."""
    return "/" in text or "\\" in text or text.startswith("~") or text.lower().endswith(_SUFFIXES)


def locate(kind: str, reference: str) -> Path:
    """The file that a scenario's ``model``, ``hardware`` or ``lengths`` means: a path or a name.

    A folder stands for the ``config.json`` in it, as Hugging Face lays a model out. Raises
    ScenarioError, without a place, for an unknown name or a file that does not exist.
    """
    if not is_path(reference):
        try:
            return find(kind, reference)
        except ScenarioError as error:
            if not Path(reference).exists():
                raise
            remedy = f"for what lies in the working directory write ./{reference}"
            raise ScenarioError(error.message, remedy=remedy) from None
    path = Path(reference)
    if kind == "models" and path.is_dir() and (path / "config.json").is_file():
        return path / "config.json"
    if path.is_dir():
        raise ScenarioError(f"'{shown(path)}' is a folder, not a file")
    if not path.exists():
        known = suggestion(path.name.lower().removesuffix(path.suffix), names(kind))
        raise ScenarioError(f"no such file '{shown(path)}'", remedy=f"{RELATIVE}; for a name without a slash: {known}")
    return path


def shown(path: Path) -> str:
    """A path for a message: from the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _is_one(path: Path, kind: str) -> bool:
    """Whether a file says that it is such hardware; whole files, with their grids, are slow to parse."""
    if kind not in _HARDWARE:
        return True
    written = re.search(r"(?m)^kind: *([a-z]+)", path.read_text(encoding="utf-8"))
    return written is not None and written[1] in _HARDWARE[kind]


def _files(kind: str) -> dict[str, Path]:
    top = folder(kind)
    found = sorted(path for suffix in ("yaml", "json") for path in top.rglob(f"*.{suffix}"))
    return {path.relative_to(top).with_suffix("").as_posix(): path for path in found}

"""Where results may be written, asked beforehand, and what the system says against it afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servsim.errors import ResultError

__all__ = ["OTHER_FOLDER", "check_file", "check_within", "writing"]

OTHER_FOLDER = "choose another with --out"


def check_within(path: Path, remedy: str = OTHER_FOLDER) -> None:
    """Raise ResultError where the folder that ``path`` is made in, the nearest one that is there, takes nothing."""
    absolute = Path(os.path.abspath(path))
    nearest = next((folder for folder in absolute.parents if folder.exists()), absolute)
    why = "is not a folder" if not nearest.is_dir() else "" if os.access(nearest, os.W_OK | os.X_OK) else "is read-only"
    if why:
        raise ResultError(f"cannot be written: {nearest} {why}", place=str(path), remedy=remedy)


def check_file(path: Path, remedy: str, *, overwrite: bool | None = None) -> None:
    """Raise ResultError, before anything is computed, where a file could not be written to ``path``.

    One that exists is in the way unless ``overwrite`` is given; None stands for a command without --overwrite.
    """
    if path.is_dir():
        raise ResultError("is a folder, not a file", place=str(path), remedy=remedy)
    if not overwrite and (path.exists() or path.is_symlink()):
        otherwise = "delete it yourself" if overwrite is None else "give --overwrite"
        raise ResultError("exists already", place=str(path), remedy=f"{remedy}, or {otherwise}")
    if not path.parent.is_dir():
        raise ResultError(
            f"there is no folder '{path.parent}'", place=str(path), remedy=f"make the folder first, or {remedy}"
        )
    check_within(path, remedy)


@contextmanager
def writing(path: Path, remedy: str = OTHER_FOLDER) -> Iterator[None]:
    """While the block writes, what the system says against it becomes a ResultError."""
    try:
        yield
    except OSError as error:
        why = f"cannot be written: {error.strerror or error}"
        raise ResultError(why, place=str(path), remedy=remedy) from error

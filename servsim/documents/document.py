"""Plain data, and where each part of it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Document", "KeyPath", "dotted"]

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """A key path as people and ``--set`` write it: ``workload.classes.0.share``."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data, and where each part of it was written.

    ``path`` is None for data that came from Python. ``lines`` leads from a key path to its line,
    counted from 1. ``overrides`` holds what was set from the command line, by key path, as it was
    written (``--set a.b=1``), ``made`` the parts that came to be only since something in them was set, and
    ``includes`` the documents that stand in place of a part.
    """

    path: Path | None
    data: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    overrides: Mapping[KeyPath, str] = field(default_factory=dict)
    made: Mapping[KeyPath, str] = field(default_factory=dict)
    includes: Mapping[KeyPath, Document] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The path as the user gave it, or ``scenario`` for data that came from Python."""
        return "scenario" if self.path is None else str(self.path)

    def place(self, path: KeyPath = ()) -> str:
        """Where ``path`` was written, for a message: ``chat.yaml:9: instance.memory.block_size``.

        What was not written is placed at the nearest part around it that was.
        """
        for length in range(len(path), -1, -1):
            written = path[:length]
            if text := self.overrides.get(written) or self.made.get(written):
                return text if path in self.overrides else f"{text}: {dotted(path)}"
            if written in self.includes:
                return self.includes[written].place(path[length:])
            if written in self.lines:
                where = f"{self.name}:{self.lines[written]}"
                return f"{where}: {dotted(path)}" if path else where
        return f"{self.name}: {dotted(path)}" if path else self.name

    def order(self, path: KeyPath) -> tuple[int, int]:
        """A sort key that puts places in the order of reading: what was set last comes first."""
        for length in range(len(path), -1, -1):
            written = path[:length]
            if written in self.overrides:
                return (0, list(self.overrides).index(written))
            if written in self.includes:
                return (2, self.includes[written].order(path[length:])[1])
            if written in self.lines:
                return (1, self.lines[written])
        return (3, 0)

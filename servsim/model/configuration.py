"""Values of a foreign config file, looked up under any of their names and checked on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from servsim.documents import Document
from servsim.errors import ScenarioError

__all__ = ["Configuration"]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A mapping inside a document; what it lacks is looked for at the document's top."""

    document: Document
    data: Mapping[str, Any]
    prefix: tuple[str | int, ...] = ()

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is written, or ``default``; null counts as missing."""
        for data in (self.data, self.document.data):
            if data.get(key) is not None:
                return data[key]
        return default

    def has_outside(self, key: str) -> bool:
        """Whether the document's top has ``key``."""
        return bool(self.document.data.get(key))

    def whole(self, *names: str, least: int = 1) -> int:
        """The integer under the first of ``names`` that is there; ScenarioError where none is."""
        found = self.optional(*names, least=least)
        if found is None:
            self.missing(*names)
        return found

    def optional(self, *names: str, least: int = 1) -> int | None:
        """The integer under the first of ``names`` that is there, or None.

        Raises ScenarioError for what is no integer, and for one below ``least``.
        """
        for name in names:
            value = self.get(name)
            if value is None:
                continue
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ScenarioError(f"must be an integer, found {value!r}", place=self.place(name))
            if value < least:
                raise ScenarioError(f"must be at least {least}, found {value}", place=self.place(name))
            return value
        return None

    def missing(self, *names: str) -> NoReturn:
        """Raise ScenarioError for a field without which the shape is not known."""
        others = f" (or {', '.join(names[1:])})" if names[1:] else ""
        raise ScenarioError(
            f"'{names[0]}'{others} is missing",
            place=self.place(),
            remedy="add it, or write the model as one of servsim's own YAML files",
        )

    def place(self, key: str | None = None) -> str:
        """File and key path for a message."""
        if key is None:
            return self.document.place(self.prefix)
        nested = self.data.get(key) is not None
        return self.document.place((*(self.prefix if nested else ()), key))

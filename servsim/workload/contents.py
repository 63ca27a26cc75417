"""Whose tokens are equal: content told by numbers, one for every unit of so many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from servsim.workload.blocks import Ints

__all__ = ["Content", "Contents"]


class Content(NamedTuple):
    """The tokens of one request or session: those of a shared prefix, then its own.

    Only whole units count: one in which the prefix ends and something else begins belongs to what follows it.
    """

    prefix_id: int  # the id of the prefix's first unit; the others follow, one by one
    prefix_units: int
    own_id: int  # the id of the first unit after them; the others follow

    def ids(self, units: int) -> tuple[int, ...]:
        """The ids of the first ``units`` units, at least ``prefix_units``."""
        end = self.own_id + units - self.prefix_units
        return (*range(self.prefix_id, self.prefix_id + self.prefix_units), *range(self.own_id, end))


@dataclass(frozen=True, slots=True)
class Contents(Sequence[tuple[int, ...]]):
    """The ``hash_ids`` of a block's requests, made when they are asked for: a long prompt has thousands of them."""

    prefix_id: Ints
    prefix_units: Ints
    own_id: Ints
    units: Ints  # those that are known of each request

    def __len__(self) -> int:
        return len(self.units)

    @overload
    def __getitem__(self, row: int) -> tuple[int, ...]: ...
    @overload
    def __getitem__(self, row: slice) -> list[tuple[int, ...]]: ...
    def __getitem__(self, row: int | slice) -> tuple[int, ...] | list[tuple[int, ...]]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        return self.content(row).ids(int(self.units[row]))

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        for content, units in zip(self.all(), self.units.tolist(), strict=True):
            yield content.ids(units)

    def content(self, row: int) -> Content:
        """What the request of this row consists of."""
        return Content(int(self.prefix_id[row]), int(self.prefix_units[row]), int(self.own_id[row]))

    def all(self) -> Iterator[Content]:
        """What each request consists of."""
        return map(Content, self.prefix_id.tolist(), self.prefix_units.tolist(), self.own_id.tolist())

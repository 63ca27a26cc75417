"""The oracle's KV memories: every block, or every token slot, has an owner."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from case import Case


class Pages:
    """A pool of numbered blocks; a sequence has a list of them. Block 0 is the null block."""

    def __init__(self, case: Case) -> None:
        self.size = case.block_size
        self.total = case.num_blocks - 1
        self.kept = int(case.watermark * case.num_blocks)
        self.whole = case.reserve_full_isl
        self.free_ids = list(range(1, case.num_blocks))
        self.tables: dict[Any, list[int]] = {}

    @property
    def capacity(self) -> int:
        return self.total * self.size

    def needed(self, tokens: int) -> int:
        blocks = 0
        while blocks * self.size < tokens:
            blocks += 1
        return blocks

    def could_hold(self, tokens: int) -> bool:
        return self.needed(tokens) <= self.total

    def grow(self, owner: Any, tokens: int) -> bool:
        """Blocks for so many tokens in all, or nothing."""
        table = self.tables[owner]
        lacking = self.needed(tokens) - len(table)
        if lacking > len(self.free_ids):
            return False
        for _ in range(lacking):
            table.append(self.free_ids.pop(0))
        return True

    def admit(self, owner: Any, total: int, tokens: int, alone: bool) -> bool:
        asked = self.needed(total if self.whole else tokens)
        if asked + (0 if alone else self.kept) > len(self.free_ids):
            return False
        self.tables[owner] = []
        return self.grow(owner, tokens)

    def free(self, owner: Any) -> None:
        self.free_ids.extend(reversed(self.tables.pop(owner)))

    def blocks(self) -> int:
        return sum(len(table) for table in self.tables.values())

    def reserved(self) -> int:
        return self.blocks() * self.size

    def fragmentation(self) -> float:
        return 0.0

    def check(self) -> None:
        everything = sorted(self.free_ids + [block for table in self.tables.values() for block in table])
        assert everything == list(range(1, self.total + 1))


class Extents:
    """A row of token slots; a sequence owns ``max_model_len`` neighbours, the first that are free."""

    def __init__(self, case: Case) -> None:
        self.size = case.block_size
        self.total = case.num_blocks
        self.extent = case.max_model_len
        self.slots: list[Any] = [None] * (case.num_blocks * case.block_size)

    @property
    def capacity(self) -> int:
        return len(self.slots)

    def could_hold(self, tokens: int) -> bool:
        return tokens <= self.extent <= len(self.slots)

    def grow(self, owner: Any, tokens: int) -> bool:
        assert tokens <= self.slots.count(owner)
        return True

    def holes(self) -> list[tuple[int, int]]:
        found, start = [], 0
        for is_free, run in groupby(self.slots, lambda owner: owner is None):
            length = len(list(run))
            if is_free:
                found.append((start, length))
            start += length
        return found

    def admit(self, owner: Any, total: int, tokens: int, alone: bool) -> bool:
        for start, length in self.holes():
            if length >= self.extent:
                self.slots[start : start + self.extent] = [owner] * self.extent
                return True
        return False

    def free(self, owner: Any) -> None:
        self.slots = [None if other is owner else other for other in self.slots]

    def blocks(self) -> int:
        return -(-self.reserved() // self.size)

    def reserved(self) -> int:
        return sum(owner is not None for owner in self.slots)

    def fragmentation(self) -> float:
        holes = [length for _, length in self.holes()]
        return 1 - max(holes) / sum(holes) if holes else 0.0

    def check(self) -> None:
        for owner in {owner for owner in self.slots if owner is not None}:
            assert self.slots.count(owner) == self.extent

"""KV blocks on their way between the device and the memories below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import simpy

from servsim.errors import SimulationError
from servsim.hardware import Direction, Tier
from servsim.memory.link import Link, Transfer
from servsim.memory.surroundings import KvShape
from servsim.memory.swap_cost import copy_operations
from servsim.memory.tier import units_held
from servsim.memory.tiers_store import Kept, TierStore

__all__ = ["Copy", "Fetching", "Granularity", "Part", "Tiers"]

Granularity = Literal["blocks", "groups"]


class Part(NamedTuple):
    """Blocks that a tier has of a sequence's prefix and the device has not."""

    level: int
    kept: Kept
    place: int  # of the first, in the prefix
    blocks: int
    first: int  # within ``kept``


@dataclass(slots=True, eq=False)
class Copy:
    """A transfer, or several in a row, for whoever waits for the end of it."""

    idle_s: float = 0.0
    ended: bool = False
    _callbacks: list[Callable[[], None]] = field(default_factory=list)

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call back when the last byte has arrived; at once if it has."""
        if self.ended:
            callback()
        else:
            self._callbacks.append(callback)

    def end(self) -> None:
        """The last byte has arrived."""
        self.ended = True
        for callback in self._callbacks:
            callback()
        self._callbacks.clear()


class Tiers:
    """The tiers below the device from near to far, each behind its own link, and the copies between neighbours.

    Down: :meth:`save` writes what the first tier lacks of a prefix, as one transfer; from every tier what has
    arrived goes on to the next in the same way (write-through). So whatever is evicted has been copied, and its
    eviction moves nothing. Up: :meth:`fetch` brings blocks from tier to tier to the device; those on their way stay in
    the tiers that they pass if there is room.

    Every device copies its own share of a block over its own link at the same time; a tier holds the shares of
    all of them. One copy of ``n`` adjacent blocks takes ``2 x layers`` operations (keys and values of each layer
    apart): with ``groups`` once for each run of neighbours in the prefix, with ``blocks`` for every block.
    """

    def __init__(
        self, env: simpy.Environment, tiers: Iterable[Tier], kv: KvShape, block_size: int, granularity: Granularity
    ) -> None:
        self.transfers = 0
        self.changed: Callable[[], None] = lambda: None
        self._by_block = granularity == "blocks"
        self._layers = kv.num_layers
        self._devices = kv.devices
        self._block_bytes = block_size * kv.bytes_per_token  # on one device
        self.names: list[str] = []
        self.stores: list[TierStore] = []
        self.links: list[Link] = []
        for tier in tiers:
            blocks = units_held(tier, self._block_bytes * kv.devices)
            self.names.append(tier.name)
            self.stores.append(TierStore(blocks))
            self.links.append(Link(env, tier.route))
        self._in_bytes = [0] * len(self.stores)
        self._out_bytes = [0] * len(self.stores)
        self._refused_blocks = [0] * len(self.stores)

    def find(self, key: int) -> tuple[int, Kept] | None:
        """The nearest tier that has this block, readable."""
        for level, store in enumerate(self.stores):
            kept = store.find(key)
            if kept is not None and not kept.arriving:
                return level, kept
        return None

    def save(self, keys: list[int], own: dict[int, Kept], own_blocks: int, level: int = 0) -> Copy | None:
        """Write to a tier what it lacks of a prefix, as far as it has room; None if nothing has to move.

        The prefix is blocks with ``keys``, then ``own_blocks`` that are the sequence's own, of which ``own`` notes
        what each tier has. From here it goes on to the tiers below.
        """
        store = self.stores[level]
        had = own.get(level)
        lacking = sum(store.find(key) is None for key in keys) + max(0, own_blocks - (had.blocks if had else 0))
        new, entry = store.keep(keys, had, own_blocks)
        if entry is not None:
            own[level] = entry
        brought = [(kept, kept.arriving[-1], kept.blocks - kept.arriving[-1]) for _, kept in new]
        blocks = sum(count for _, _, count in brought)
        self._refused_blocks[level] += lacking - blocks
        if not new:
            self._pass_on(keys, own, own_blocks, level)
            return None
        sources = self._sources(keys, own, [kept.key for _, kept in new], level)
        copy = Copy()

        def ended(transfer: Transfer) -> None:
            self.transfers -= 1
            self._out_bytes[level] += blocks * self._block_bytes * self._devices
            for kept, first, _count in brought:
                store.arrived(kept, first)
            for kept in sources:
                self.stores[level - 1].unpin(kept)
            self._pass_on(keys, own, own_blocks, level)
            copy.end()
            self.changed()

        places = [(place, count) for (place, _), (_, _, count) in zip(new, brought, strict=True)]
        self.start(level, "out", places, ended)
        return copy

    def fetch(self, parts: list[Part], own: dict[int, Kept]) -> Fetching:
        """Bring blocks to the device, those of each tier together."""
        return Fetching(self, parts, own)

    def idle_time_s(self, parts: list[Part]) -> float:
        """What the copies of a fetch take on idle links, one after the other."""
        total_s = 0.0
        for level in sorted({part.level for part in parts}):
            places = [(part.place, part.blocks) for part in parts if part.level == level]
            size_bytes, operations = self._amount(places)
            total_s += sum(self.links[on].idle_time_s(size_bytes, operations, "in") for on in range(level + 1))
        return total_s

    def start(
        self, level: int, direction: Direction, places: list[tuple[int, int]], done: Callable[[Transfer], None]
    ) -> Transfer:
        """Begin to copy blocks, given by where in the prefix and how many, over the link of a tier."""
        self.transfers += 1
        return self.links[level].start(*self._amount(places), direction, done)

    def fetched(self, level: int, blocks: int) -> None:
        """So many blocks have come over the link of a tier."""
        self._in_bytes[level] += blocks * self._block_bytes * self._devices

    def report(self) -> dict[str, float]:
        """Bytes over each link, of all devices; blocks evicted from each tier, and blocks that it had no room for."""
        told: dict[str, float] = {}
        for level, name in enumerate(self.names):
            told[f"copied_in_bytes_{name}"] = self._in_bytes[level]
            told[f"copied_out_bytes_{name}"] = self._out_bytes[level]
            told[f"evicted_blocks_{name}"] = self.stores[level].evicted_blocks
            told[f"refused_blocks_{name}"] = self._refused_blocks[level]
        return told

    def check_integrity(self) -> None:
        """Raise SimulationError unless each tier's books are right, and every transfer is one of a link."""
        for name, store in zip(self.names, self.stores, strict=True):
            store.check_integrity(name)
        in_flight = sum(link.in_flight for link in self.links)
        if in_flight != self.transfers:
            raise SimulationError(f"{self.transfers} transfers are waited for, but {in_flight} are under way")

    def _pass_on(self, keys: list[int], own: dict[int, Kept], own_blocks: int, level: int) -> None:
        """What a tier has now of a prefix goes on to the next."""
        if level + 1 == len(self.stores):
            return
        store = self.stores[level]
        there = [key for key in keys if (kept := store.find(key)) is not None and not kept.arriving]
        kept = own.get(level)
        self.save(there, own, min(own_blocks, kept.readable) if kept is not None else 0, level + 1)

    def _sources(self, keys: list[int], own: dict[int, Kept], new: list[int | None], level: int) -> list[Kept]:
        """Where blocks that are new in a tier come from in the tier above, pinned; the device holds its own."""
        if not level:
            return []
        above = self.stores[level - 1]
        sources = []
        for key in new:
            kept = own[level - 1] if key is None else above.find(key)
            assert kept is not None
            above.pin(kept)
            sources.append(kept)
        return sources

    def _amount(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """Bytes and operations, on each device, of a copy of blocks at these places."""
        blocks = sum(count for _, count in places)
        runs = blocks
        if not self._by_block:
            runs, behind = 0, -1
            for place, count in sorted(places):
                runs += place != behind
                behind = place + count
        return blocks * self._block_bytes, copy_operations(runs, self._layers)


class Fetching(Copy):
    """Blocks on their way up to the device; :meth:`cancel` stops them."""

    def __init__(self, tiers: Tiers, parts: list[Part], own: dict[int, Kept]) -> None:
        super().__init__(idle_s=tiers.idle_time_s(parts))
        self._tiers = tiers
        self._own = own
        self._under_way: dict[int, _Stage] = {}  # by the tier that they come from
        for level in sorted({part.level for part in parts}):
            self._begin(level, level, [part for part in parts if part.level == level])

    def cancel(self) -> None:
        """What has not arrived on the device never will."""
        for stage in self._under_way.values():
            stage.cancel()
        self._under_way.clear()

    def _begin(self, origin: int, level: int, parts: list[Part]) -> None:
        self._under_way[origin] = _Stage(self._tiers, level, parts, self._own, lambda on: self._came(origin, level, on))

    def _came(self, origin: int, level: int, parts: list[Part]) -> None:
        """The blocks of one tier of origin have come one memory nearer."""
        if level:
            self._begin(origin, level - 1, parts)
            return
        del self._under_way[origin]
        if not self._under_way:
            self.end()


class _Stage:
    """A transfer from a tier to the memory above it, which keeps the blocks if it is a tier and has room."""

    def __init__(
        self, tiers: Tiers, level: int, parts: list[Part], own: dict[int, Kept], done: Callable[[list[Part]], None]
    ) -> None:
        self._tiers = tiers
        self._level = level
        self._parts = parts
        self._done = done
        self._taken = [part.kept for part in parts if part.level == level]  # others pass through without a place here
        for kept in self._taken:
            tiers.stores[level].pin(kept)
        self._brought = self._make_room(own) if level else []
        self._transfer = tiers.start(level, "in", [(part.place, part.blocks) for part in parts], self._ended)

    def cancel(self) -> None:
        """Nothing has come."""
        self._transfer.cancel()
        self._tiers.transfers -= 1
        for _, kept, first in self._brought:
            self._tiers.stores[self._level - 1].drop(kept, first)
        self._let_go()

    def _make_room(self, own: dict[int, Kept]) -> list[tuple[int, Kept, int]]:
        """Places in the tier above, for as many as there is room: which part, its entry there, and from where on."""
        above = self._level - 1
        keyed = [index for index, part in enumerate(self._parts) if part.kept.key is not None]
        rest = [index for index, part in enumerate(self._parts) if part.kept.key is None]
        keys = [key for index in keyed if (key := self._parts[index].kept.key) is not None]
        own_blocks = self._parts[rest[0]].first + self._parts[rest[0]].blocks if rest else 0
        new, entry = self._tiers.stores[above].keep(keys, own.get(above), own_blocks)
        if entry is not None:
            own[above] = entry
        return [(rest[0] if kept.key is None else keyed[place], kept, kept.arriving[-1]) for place, kept in new]

    def _ended(self, _: Transfer) -> None:
        self._tiers.transfers -= 1
        self._tiers.fetched(self._level, sum(part.blocks for part in self._parts))
        parts = self._parts
        if self._level:
            store = self._tiers.stores[self._level - 1]
            parts = list(self._parts)
            for index, kept, first in self._brought:
                store.arrived(kept, first)
                parts[index] = parts[index]._replace(level=self._level - 1, kept=kept)
        self._let_go()
        self._done(parts)
        self._tiers.changed()

    def _let_go(self) -> None:
        for kept in self._taken:
            self._tiers.stores[self._level].unpin(kept)

"""Prefixes that prompts share: how long each is, how often it is taken, and the ids of its content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from servsim.scenario.session_spec import PrefixSpec
from servsim.streams import Streams
from servsim.workload.blocks import Floats, Ints
from servsim.workload.lengths import quantiles

__all__ = ["ChosenPrefixes", "Prefixes"]


class ChosenPrefixes(NamedTuple):
    """The prefixes of some requests, as arrays over them; all 0 for one without."""

    tokens: Ints
    units: Ints  # whole units of ``tokens_per_hash`` tokens
    first_id: Ints


class _Pool(NamedTuple):
    """The prefixes that one part of the scenario speaks of."""

    reached: Floats  # cumulated shares, the last one 1
    tokens: Ints
    units: Ints
    first_id: Ints


class Prefixes:
    """The prefixes of each class of clients; what two classes spell out apart is never equal.

    ``specs`` are those of the classes, with their names: None for a class without, and one object under the name
    None for those that have the workload's.
    """

    def __init__(
        self, specs: Sequence[tuple[str | None, PrefixSpec] | None], streams: Streams, tokens_per_hash: int
    ) -> None:
        self.used_ids = 0  # all ids below are those of prefixes
        pools: dict[str | None, _Pool] = {}
        for one in specs:
            if one is not None and one[0] not in pools:
                pools[one[0]] = self._pool(*one, streams, tokens_per_hash)
        self._pools = [None if one is None else pools[one[0]] for one in specs]

    def _pool(self, name: str | None, spec: PrefixSpec, streams: Streams, tokens_per_hash: int) -> _Pool:
        draws = streams.get("prefixes.tokens" if name is None else f"prefixes.tokens.{name}")
        tokens = quantiles(spec.tokens)(draws.random(spec.count))
        shares = np.arange(1, spec.count + 1) ** -spec.zipf_exponent if spec.shares is None else np.array(spec.shares)
        reached = np.cumsum(shares)
        units = tokens // tokens_per_hash
        first_id = self.used_ids + np.cumsum(units) - units
        self.used_ids += int(units.sum())
        return _Pool(reached / reached[-1], tokens, units, first_id)

    def choose(self, members: Ints, u: Floats) -> ChosenPrefixes:
        """The prefixes of requests of these classes, by a uniform number each."""
        chosen = ChosenPrefixes(*(np.zeros(len(members), dtype=np.int64) for _ in ChosenPrefixes._fields))
        for number, pool in enumerate(self._pools):
            if pool is not None:
                mine = np.flatnonzero(members == number)
                rows = np.searchsorted(pool.reached, u[mine], side="right")
                chosen.tokens[mine] = pool.tokens[rows]
                chosen.units[mine] = pool.units[rows]
                chosen.first_id[mine] = pool.first_id[rows]
        return chosen

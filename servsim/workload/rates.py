"""A rate that is constant in pieces, and the arrivals of a Poisson process that has it.

If ``S`` are the arrivals of a Poisson process of rate one and ``mass(t)`` is the integral of the rate, the times at
which the mass reaches ``S`` are the arrivals of the process with that rate, exactly (Çinlar, Introduction to Stochastic
Processes, 1975, chapter 4). Where the rate is random itself, this holds given its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from servsim.scenario.arrival_spec import MmppArrivals, PiecewiseArrivals
from servsim.streams import Streams
from servsim.workload.blocks import Floats

__all__ = ["Pieces", "RatePath", "mmpp_pieces", "piecewise_pieces"]

_PIECES_AT_ONCE = 1024


class Pieces(NamedTuple):
    """Successive pieces of a rate, as arrays of one length; each piece begins where the last one ended."""

    start_s: Floats
    end_s: Floats  # the last one may be infinite
    start_mass: Floats  # requests expected before start_s
    end_mass: Floats
    rate_per_s: Floats


class RatePath:
    """The times at which the integral of a rate reaches given values, asked for in rising order."""

    def __init__(self, pieces: Iterator[Pieces]) -> None:
        self._following = pieces
        self._pieces = next(pieces)

    def times_s(self, masses: Floats) -> Floats:
        """When the integral reaches each of ``masses`` (rising, from call to call too).

        The answer is shorter than the question if the rate falls to 0 for good before.
        """
        found = []
        while len(masses):
            here = int(np.searchsorted(masses, self._pieces.end_mass[-1], side="right"))
            found.append(_invert(self._pieces, masses[:here]))
            masses = masses[here:]
            if len(masses):
                following = next(self._following, None)
                if following is None:
                    break
                self._pieces = following
        return np.concatenate(found) if found else np.empty(0)


def _invert(pieces: Pieces, masses: Floats) -> Floats:
    # The first piece whose end reaches the mass: never one of rate 0, where the mass stands still.
    piece = np.searchsorted(pieces.end_mass, masses, side="left")
    after_start_s = (masses - pieces.start_mass[piece]) / pieces.rate_per_s[piece]
    return np.minimum(pieces.start_s[piece] + after_start_s, pieces.end_s[piece])


def piecewise_pieces(spec: PiecewiseArrivals) -> Iterator[Pieces]:
    """The rates that a scenario lists, again and again where it gives a period."""
    start_s = np.array([one.start_s for one in spec.rates])
    rate_per_s = spec.rate_scale * np.array([one.rate_per_s for one in spec.rates])
    end_s = np.append(start_s[1:], np.inf if spec.period_s is None else spec.period_s)
    gained = np.where(rate_per_s > 0, end_s - start_s, 0.0) * rate_per_s
    end_mass = np.cumsum(gained)
    start_mass = np.append(0.0, end_mass[:-1])
    once = Pieces(start_s, end_s, start_mass, end_mass, rate_per_s)
    if spec.period_s is None:
        yield once
        return
    repeats = -(-_PIECES_AT_ONCE // len(start_s))
    period = 0
    while True:
        numbers = np.arange(period, period + repeats, dtype=np.float64)[:, None]
        offset_s, offset_mass = numbers * spec.period_s, numbers * end_mass[-1]
        yield Pieces(
            (start_s + offset_s).ravel(),
            (end_s + offset_s).ravel(),
            (start_mass + offset_mass).ravel(),
            (end_mass + offset_mass).ravel(),
            np.tile(rate_per_s, repeats),
        )
        period += repeats


def mmpp_pieces(spec: MmppArrivals, streams: Streams) -> Iterator[Pieces]:
    """The rate of a Markov-modulated process: states in turn, each for an exponential time, from a stationary start."""
    draws = streams.get("arrivals.states")
    dwell_s = np.array([state.mean_dwell_s for state in spec.states])
    rates = spec.rate_scale * np.array([state.rate_per_s for state in spec.states])
    state = min(int(np.searchsorted(np.cumsum(dwell_s) / dwell_s.sum(), draws.random(), side="right")), len(rates) - 1)
    now_s, mass = 0.0, 0.0
    while True:
        states = (state + np.arange(_PIECES_AT_ONCE)) % len(rates)
        # The time left of the first state is exponential with the same mean: it has no memory.
        lasting_s = draws.standard_exponential(_PIECES_AT_ONCE) * dwell_s[states]
        bounds_s = np.cumsum(np.append(now_s, lasting_s))
        masses = np.cumsum(np.append(mass, lasting_s * rates[states]))
        yield Pieces(bounds_s[:-1], bounds_s[1:], masses[:-1], masses[1:], rates[states])
        now_s, mass = float(bounds_s[-1]), float(masses[-1])
        state = (state + _PIECES_AT_ONCE) % len(rates)

"""How many experts are chosen, and how many rows they compute, under a benchmark's routing."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["chosen_and_padded"]

_LEAST, _MOST = 1.0, 100.0  # the popularities that AIConfigurator draws power laws between


def chosen_and_padded(
    tokens: NDArray[Any], topk: NDArray[Any], experts: NDArray[Any], distribution: NDArray[Any], tile_rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each row of a table: the experts chosen at least once, and the rows of their tiles together.

    ``balanced`` spreads tokens evenly. ``power_law_A`` makes an expert's popularity ``x`` fall as ``x ** -A``
    between 1 and 100 (AIConfigurator's generator); its quantiles stand in for its draws.
    """
    found = [
        _tabulated(int(t), int(k), int(e), str(d), tile_rows)
        for t, k, e, d in zip(tokens, topk, experts, distribution, strict=True)
    ]
    both = np.array(found, dtype=float)
    return both[:, 0], both[:, 1]


@cache
def _tabulated(tokens: int, topk: int, experts: int, distribution: str, tile_rows: int) -> tuple[float, float]:
    if distribution == "balanced":
        chosen = min(experts, tokens * topk)
        return chosen, chosen * np.ceil(tokens * topk / chosen / tile_rows) * tile_rows
    load = _power_law_load(tokens, topk, experts, float(distribution.rpartition("_")[2]))
    share = np.minimum(load, 1.0)
    padded = np.maximum(share, np.ceil(load / tile_rows) * (load >= 1.0)) * tile_rows
    return float(share.sum()), float(padded.sum())


def _power_law_load(tokens: int, topk: int, experts: int, exponent: float) -> NDArray[np.float64]:
    """Tokens expected at each expert; none gets more than all of them."""
    quantiles = (np.arange(experts) + 0.5) / experts
    low, high = _LEAST ** (1 - exponent), _MOST ** (1 - exponent)
    load: NDArray[np.float64] = (low + quantiles * (high - low)) ** (1 / (1 - exponent))
    load *= tokens * topk / load.sum()
    for _ in range(experts):
        full = load >= tokens
        spilt = load[full].sum() - tokens * full.sum()
        if spilt <= 1e-9 or full.all():
            break
        load[full] = tokens
        load[~full] *= 1 + spilt / load[~full].sum()
    return load

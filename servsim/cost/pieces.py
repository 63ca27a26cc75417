"""Piecewise linear functions of the attended tokens, from which strides take their closed form."""

from __future__ import annotations

from collections.abc import Sequence as Many

from servsim.cost.law import Line

__all__ = ["NO_LIMIT", "Piece", "at_least", "raised", "through", "upper_envelope"]

NO_LIMIT = float("inf")
Piece = tuple[float, float, float]  # up to so many attended tokens: constant, slope


def upper_envelope(lines: Many[Line]) -> list[Piece]:
    """The maximum of lines over x >= 0, as pieces ``(up to x, constant, slope)`` of rising slope."""
    constant, slope = max(lines)
    pieces: list[Piece] = []
    while True:
        # Where a steeper line meets this one; of several at one point the steepest goes on.
        meets = [
            ((constant - other) / (steeper - slope), -steeper, other) for other, steeper in lines if steeper > slope
        ]
        if not meets:
            return [*pieces, (NO_LIMIT, constant, slope)]
        limit, negative_slope, other = min(meets)
        if limit > 0:
            pieces.append((limit, constant, slope))
        constant, slope = other, -negative_slope


def through(points: Many[tuple[float, float]], slope: float) -> list[Piece]:
    """The pieces through points ``(x, y)`` of rising x, at ``slope`` beyond the last; they never fall."""
    pieces: list[Piece] = []
    x, y = points[0]
    for next_x, found in points[1:]:
        next_y = max(y, found)
        steepness = (next_y - y) / (next_x - x)
        pieces.append((next_x, y - steepness * x, steepness))
        x, y = next_x, next_y
    return [*pieces, (NO_LIMIT, y - slope * x, slope)]


def raised(pieces: Many[Piece], constant: float, factor: float = 1.0) -> list[Piece]:
    """``factor`` times the function, and ``constant`` more."""
    return [(limit, constant + factor * start, factor * slope) for limit, start, slope in pieces]


def at_least(pieces: Many[Piece], least: float) -> list[Piece]:
    """The function where it exceeds ``least``, else that; the function must not fall."""
    kept = list(pieces)
    while len(kept) > 1 and kept[0][1] + kept[0][2] * kept[0][0] <= least:
        kept.pop(0)
    limit, constant, slope = kept[0]
    if slope > 0 and (crossing := (least - constant) / slope) > 0:
        return [(crossing, least, 0.0), *kept]
    return kept if slope > 0 or constant >= least else [(limit, least, 0.0), *kept[1:]]

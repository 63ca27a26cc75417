"""Random numbers that belong to requests, whatever the order in which they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["Chance"]

_BATCH = 4096


class Chance:
    """One number for each request, drawn in order of ``request_id``.

    So a request is judged alike whatever the policy and wherever it is served. 8 bytes a request are kept.
    """

    def __init__(self, draw: Callable[[int], np.ndarray]) -> None:
        self._draw = draw
        self._drawn: list[float] = []

    def of(self, request_id: int) -> float:
        """The number of this request."""
        while request_id >= len(self._drawn):
            self._drawn.extend(self._draw(_BATCH).tolist())
        return self._drawn[request_id]

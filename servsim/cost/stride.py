"""A stride's clock: when each of its steps ends, counted from one anchor."""

from __future__ import annotations

import math

__all__ = ["Stride"]


class Stride:
    """Consecutive equal steps whose duration grows linearly: step k (from 0) lasts ``first_s + k * growth_s``.

    ``end_s(k)`` is when the k-th step (from 1) ends, always computed from the anchor ``start_s`` by one
    expression, however the stride was cut; so single and strided stepping agree to the bit. After
    ``limit`` steps the law changes (a roofline's ridge, say) and a new stride begins there.
    """

    __slots__ = ("first_s", "growth_s", "limit", "start_s")

    def __init__(self, start_s: float, first_s: float, growth_s: float = 0.0, limit: int = 1) -> None:
        self.start_s = start_s
        self.first_s = first_s
        self.growth_s = growth_s
        self.limit = limit

    def __repr__(self) -> str:
        return f"Stride(start_s={self.start_s!r}, first_s={self.first_s!r}, growth_s={self.growth_s!r})"

    def end_s(self, step: int) -> float:
        """When the ``step``-th step ends; ``end_s(0)`` is the start."""
        return self.start_s + (step * self.first_s + self.growth_s * (0.5 * (step * (step - 1))))

    def step_s(self, step: int) -> float:
        """How long the ``step``-th step (from 1) lasts."""
        return self.first_s + (step - 1) * self.growth_s

    def first_end_at_or_after(self, time_s: float) -> int:
        """The first step (from 1) that does not end before ``time_s``."""
        elapsed = time_s - self.start_s
        if elapsed <= self.first_s:
            # Rounding may put the end of the first step a hair before time_s all the same.
            step = 1
        else:
            half = 0.5 * self.growth_s
            linear = self.first_s - half
            # The root of half k^2 + linear k = elapsed, in the form that is stable for tiny growth.
            step = max(1, math.ceil(2 * elapsed / (linear + math.sqrt(linear * linear + 4 * half * elapsed))))
        while self.end_s(step) < time_s:
            step += 1
        while step > 1 and self.end_s(step - 1) >= time_s:
            step -= 1
        return step

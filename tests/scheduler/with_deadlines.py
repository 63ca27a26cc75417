"""Policies with deadlines in the drawn scenarios: bounds and costs are put into what they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from servsim import registry
from servsim.scheduler.policy import Bounds, Surroundings


@contextmanager
def known(
    name: str,
    bounds: tuple[Bounds, ...],
    *,
    prefill_s: Callable[[int], float] = lambda tokens: 0.25 + tokens / 64,
    decode_s: Callable[[int, int], float] = lambda decoders, context: 0.125 + decoders / 1024,
    **parameters: Any,
) -> Iterator[str]:
    """A name under which the policy ``name`` is found with these bounds and parameters.

    Requests take the SLO classes in turn, and a class's index is their priority.
    """
    kind = registry.resolve("schedulers", name)

    class Bounded(kind):  # type: ignore[misc]
        def accepts(self, sequence: Any) -> bool:
            sequence.slo_class = sequence.priority = sequence.request_id % len(bounds)
            return bool(super().accepts(sequence))

    def make(surroundings: Surroundings) -> Any:
        schema = getattr(kind, "Parameters", None)
        return Bounded(
            replace(
                surroundings,
                bounds=bounds,
                parameters=schema(**parameters) if schema else None,
                prefill_s=prefill_s,
                decode_s=decode_s,
            )
        )

    before = dict(registry._registered["schedulers"])
    registry._registered["schedulers"]["bounded"] = make
    try:
        yield "bounded"
    finally:
        registry._registered["schedulers"] = before

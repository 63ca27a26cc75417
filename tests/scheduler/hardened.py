"""Policies with parameters, tenants and a small swap space, for drawn cases that know nothing of these."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "oracle"))

from assembly import Assembly
from case import Case
from checks import same_bits

from servsim import registry
from servsim.scheduler import Surroundings


def hardened(
    kind: type, parameters: Any = None, *, tenants: int = 1, kv_bytes: int = 0, prefill: bool = False
) -> Callable[[Surroundings], Any]:
    """A policy to be registered: ``tenants`` take turns, KV has so many bytes a token, prompts take 1/32 s a token."""

    class Hardened(kind):  # type: ignore[misc, valid-type]
        def __init__(self, surroundings: Surroundings) -> None:
            changed: dict[str, Any] = {"kv_bytes_per_token": kv_bytes, "parameters": parameters}
            if prefill:
                changed["prefill_s"] = lambda tokens: tokens / 32
            super().__init__(replace(surroundings, **changed))

        def add(self, sequence: Any) -> None:
            sequence.tenant = sequence.request_id * 7 % tenants
            super().add(sequence)

    return Hardened


def strides_are_exact(case: Case, policy: Any) -> list[Any]:
    """Strided equals single, planning twice changes nothing, and all memory comes back; the policies that ran."""
    registry._registered["schedulers"]["hardened"] = policy
    try:
        case = replace(case, policy="hardened")
        strided = Assembly(case)
        records = strided.run()
        same_bits(records, Assembly(case, single=True).run())
        same_bits(records, Assembly(case, single=True, change=_twice).run())
    finally:
        del registry._registered["schedulers"]["hardened"]
    assert len(records.requests["request_id"]) == strided.submitted == len(case.requests)
    for instance in strided.instances:
        memory = instance.memory
        assert (memory.used_blocks, memory.stored_tokens, memory.reserved_tokens) == (0, 0, 0)
        assert instance.policy.waiting == len(instance.running) == 0
        assert instance.running.context_tokens == 0
    return [instance.policy for instance in strided.instances]


def _twice(policy: Any) -> None:
    plan = policy.plan

    def asked_twice(now_s: float) -> Any:
        first, second = plan(now_s), plan(now_s)
        assert first[:-1] == second[:-1]
        return second

    policy.plan = asked_twice

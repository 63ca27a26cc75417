"""Plug-ins by name: a name leads to ``module:object``, imported when somebody asks for it.

servsim's own plug-ins are listed here; other packages add theirs through the entry points
``servsim.schedulers``, ``servsim.allocators``, ``servsim.predictors``, ``servsim.trace_readers``
and ``servsim.routers``, and a script through :func:`register`. A later registration of a name
wins over an earlier one, so that a built-in plug-in can be replaced.
"""

from __future__ import annotations

import importlib
from typing import Any

from servsim.errors import ScenarioError, suggestion

__all__ = ["KINDS", "names", "register", "resolve"]

_BUILT_IN: dict[str, dict[str, str]] = {
    "schedulers": {
        "fcfs": "servsim.scheduler.fcfs:Fcfs",
        "past_future": "servsim.scheduler.past_future:PastFuture",
        "sjf": "servsim.scheduler.sjf:Sjf",
    },
    "allocators": {
        "contiguous": "servsim.memory.contiguous:ContiguousAllocator",
        "paged": "servsim.memory.paged:PagedAllocator",
    },
    "predictors": {
        "lognormal_noise": "servsim.scheduler.predictors:LognormalNoise",
        "oracle": "servsim.scheduler.predictors:Oracle",
    },
    "trace_readers": {
        "azure": "servsim.workload.readers.azure:read",
        "burstgpt": "servsim.workload.readers.burstgpt:read",
        "mooncake": "servsim.workload.readers.mooncake:read",
        "sharegpt": "servsim.workload.readers.sharegpt:read",
        "splitwise": "servsim.workload.readers.splitwise:read",
        "table": "servsim.workload.readers.table:read",
        "vidur": "servsim.workload.readers.vidur:read",
        "vllm_timed_trace": "servsim.workload.readers.vllm_timed_trace:read",
    },
    "routers": {
        "random": "servsim.cluster.routers:RandomRouter",
        "round_robin": "servsim.cluster.routers:RoundRobin",
    },
}
KINDS = tuple(_BUILT_IN)

_registered: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
_entry_points: dict[str, dict[str, Any]] = {}


def register(kind: str, name: str, plug_in: Any) -> None:
    """Make ``plug_in`` (an object, or a string ``module:object``) known as ``name``.

    ``kind`` is one of :data:`KINDS`. Registrations live in this process; packages use entry points.
    """
    _check_kind(kind)
    _registered[kind][name] = plug_in


def names(kind: str) -> list[str]:
    """Every known name of a kind, sorted."""
    _check_kind(kind)
    return sorted({*_BUILT_IN[kind], *_from_entry_points(kind), *_registered[kind]})


def resolve(kind: str, name: str) -> Any:
    """The plug-in called ``name``; raises ScenarioError with the known names."""
    _check_kind(kind)
    if name in _registered[kind]:
        found = _registered[kind][name]
        return _load(found) if isinstance(found, str) else found
    if name in _from_entry_points(kind):
        return _from_entry_points(kind)[name].load()
    if name in _BUILT_IN[kind]:
        return _load(_BUILT_IN[kind][name])
    raise ScenarioError(f"unknown {kind[:-1].replace('_', ' ')} '{name}'", remedy=suggestion(name, names(kind)))


def _from_entry_points(kind: str) -> dict[str, Any]:
    if kind not in _entry_points:
        from importlib.metadata import entry_points  # slow to import, and needed by few commands

        _entry_points[kind] = {point.name: point for point in entry_points(group=f"servsim.{kind}")}
    return _entry_points[kind]


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _check_kind(kind: str) -> None:
    if kind not in _BUILT_IN:
        raise ValueError(f"{kind!r} is no kind of plug-in; kinds are {', '.join(KINDS)}")

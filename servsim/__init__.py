"""servsim: a fast, exact discrete-event simulator of LLM serving.

Public names are resolved when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servsim.errors import ServsimError as ServsimError
    from servsim.registry import register as register
    from servsim.request import Request as Request
    from servsim.request import Sequence as Sequence
    from servsim.scenario import load_scenario as load_scenario
    from servsim.scheduler.batching import VllmV1Batching as VllmV1Batching
    from servsim.scheduler.plan import Plan as Plan
    from servsim.simulation import Result as Result
    from servsim.simulation import simulate as simulate
    from servsim.version import VERSION as __version__

__all__ = [
    "Plan",
    "Request",
    "Result",
    "Sequence",
    "ServsimError",
    "VllmV1Batching",
    "__version__",
    "load_scenario",
    "register",
    "simulate",
]

_HOMES = {
    "Plan": "servsim.scheduler.plan:Plan",
    "Request": "servsim.request:Request",
    "Result": "servsim.simulation:Result",
    "Sequence": "servsim.request:Sequence",
    "ServsimError": "servsim.errors:ServsimError",
    "VllmV1Batching": "servsim.scheduler.batching:VllmV1Batching",
    "__version__": "servsim.version:VERSION",
    "load_scenario": "servsim.scenario:load_scenario",
    "register": "servsim.registry:register",
    "simulate": "servsim.simulation:simulate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'servsim' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Events at absolute times, and the order of what happens at one instant.

SimPy's ``timeout`` takes a delay, and ``now + (t - now)`` need not equal ``t``: a step boundary that is
counted from its stride's anchor would drift by an ulp. :func:`schedule_at` puts an event on SimPy's
queue at the very time it is given.
"""

from __future__ import annotations

from heapq import heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import simpy

__all__ = ["ARRIVAL", "BOUNDARY", "FIRST", "PLAN", "TIMER", "TRANSFER", "schedule_at"]

# At one instant: transfers end, requests arrive (by request_id), timers ring, then the engines end
# their step in the order of instances. PLAN lets arrivals that a finish caused at the same instant
# (a closed loop without think time) go before the plan. SimPy itself starts its processes with priority 0 and 1.
FIRST = -1
TRANSFER = 2
ARRIVAL = 3
TIMER = 4
BOUNDARY = 16
PLAN = 1 << 40


def schedule_at(env: simpy.Environment, event: Any, time_s: float, priority: int) -> None:
    """Trigger ``event`` at exactly ``time_s``, after everything at that time with a lower priority.

    The event must not have been triggered before; it succeeds with the value None.
    """
    event._ok = True
    event._value = None
    entry: Any = (time_s, priority, next(env._eid), event)  # SimPy's own type knows its two priorities only
    heappush(env._queue, entry)

"""Cases drawn by hypothesis: small, crowded, and full of coincidences."""

from __future__ import annotations

import math
from typing import Any

from case import Asked, Case
from costs import LinesCost, roofline
from hypothesis import strategies as st

from servsim.cost.fixed import FixedCost

UNIT_S = 2.0**-10  # exact clocks count in such units

_lines = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 4)), min_size=1, max_size=3).map(tuple)
exact_costs = st.one_of(
    st.builds(FixedCost, st.just(1 / 4), st.just(1 / 8)),
    st.builds(FixedCost, st.just(1 / 16), st.just(1 / 16)),
    st.builds(LinesCost, st.just(UNIT_S), _lines, st.sampled_from([1 << 60, 5, 2])),
)
rooflines = st.builds(roofline, st.sampled_from([None, 1, 2, 4]), st.sampled_from([20, 60, 150]), st.booleans())
inexact_costs = st.one_of(
    st.builds(FixedCost, st.just(0.1), st.just(0.03)),
    st.builds(LinesCost, st.just(1e-3 / 3), _lines, st.sampled_from([1 << 60, 5])),
    rooflines,
)


@st.composite
def cases(
    draw: Any,
    exact: bool = False,
    cost: Any = None,
    coincidences: bool = True,
    loops: bool = True,
    policy: str | None = None,
) -> Case:
    """A case; ``exact``: its times add up without rounding, whatever the order.

    Without ``coincidences`` requests arrive off the grid of step times, and nobody thinks for a whole number of steps:
    where a clock rounds, an arrival that falls on a boundary may be seen on either side of it.
    """
    if cost is None:
        cost = exact_costs if exact else st.one_of(exact_costs, inexact_costs)
    chosen_cost = draw(cost)
    step_s = chosen_cost.decode_stride(0.0, 1, 10).first_s
    requests = draw(_requests(step_s if coincidences else step_s * math.sqrt(0.5)))
    instances = draw(st.sampled_from([1, 1, 1, 2, 3]))
    max_num_seqs = draw(st.sampled_from([4, 3, 6, 8, 2, 1]))
    looped = loops and draw(st.sampled_from([False, False, False, True]))
    return Case(
        requests=requests,
        cost=chosen_cost,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + draw(st.sampled_from([0, 1, 5, 17, 40, 2000])),
        instances=instances,
        router=draw(st.sampled_from(["round_robin", "random"])) if instances > 1 else "round_robin",
        concurrency=draw(st.integers(1, 6)) if looped else None,
        think_s=draw(st.sampled_from([0.0, 0.0, 1 / 8, 2.0] if coincidences else [0.0])) if looped else 0.0,
        seed=draw(st.integers(0, 3)),
        **draw(_policies(policy)),
        **draw(_memories(requests)),
    )


@st.composite
def _requests(draw: Any, tick_s: float) -> tuple[Asked, ...]:
    longest_prompt, shortest_output, longest_output = draw(
        st.sampled_from([(12, 20, 40), (20, 10, 60), (12, 1, 10), (60, 1, 40)])
    )
    size = draw(st.sampled_from([8, 12, 4, 1]))
    # In steps of one decoder, usually, so that coincidences happen.
    gaps = st.sampled_from(draw(st.sampled_from([[0, 0, 0, 1, 3], [0, 0, 1, 2, 5], [0, 1, 2, 10, 40]])))
    outputs = st.integers(shortest_output, longest_output)
    drawn = draw(
        st.lists(
            st.tuples(
                gaps,
                st.integers(1, longest_prompt),
                st.one_of(outputs, outputs, outputs, outputs, st.just(1)),
                st.sampled_from([0, 0, 3, 30]),
            ),
            min_size=size,
            max_size=size + 4,
        )
    )
    requests, clock = [], 0
    for gap, prompt, output, slack in drawn:
        clock += gap
        requests.append(Asked(clock * tick_s, prompt, output, output + slack))
    return tuple(requests)


@st.composite
def _policies(draw: Any, policy: str | None) -> dict[str, Any]:
    policy = policy or draw(st.sampled_from(["fcfs", "sjf", "sjf", "past_future"]))
    found: dict[str, Any] = {"policy": policy}
    if policy == "sjf":
        found["sigma"] = draw(st.sampled_from([None, 0.5, 2.0]))
    if policy == "past_future":
        found["reserve"] = draw(st.sampled_from([0.0, 0.05, 0.3]))
        found["window"] = draw(st.sampled_from([2, 3, 10, 200]))
        found["default_output"] = draw(st.sampled_from([1, 8, 40]))
        found["wait_steps"] = draw(st.sampled_from([1, 2, 6, 20]))
    return found


@st.composite
def _memories(draw: Any, requests: tuple[Asked, ...]) -> dict[str, Any]:
    longest = max(asked.prompt + asked.output for asked in requests)
    size = draw(st.sampled_from([4, 1, 2, 5, 16]))
    limit = longest + draw(st.sampled_from([0, 0, 7, -1]))
    found: dict[str, Any] = {"block_size": size, "max_model_len": max(2, limit)}
    if draw(st.sampled_from([False, False, False, True])):
        places = draw(st.integers(1, 4))
        slots = found["max_model_len"] * places + draw(st.integers(0, 5))
        return {**found, "allocator": "contiguous", "num_blocks": -(-slots // size)}
    needed = -(-(longest - 1) // size)
    found["num_blocks"] = max(
        2, 1 + needed + draw(st.one_of(st.integers(-1, 2), st.integers(0, 4), st.integers(0, needed)))
    )
    if draw(st.sampled_from([False, False, False, True])):
        found["num_blocks"] += 10 * needed
    found["watermark"] = draw(st.sampled_from([0.0, 0.0, 0.01, 0.2]))
    found["reserve_full_isl"] = draw(st.booleans())
    return found


picks = st.lists(
    st.tuples(
        st.floats(0, 1, allow_nan=False),
        st.sampled_from(["on", "before", "after"]),
        st.builds(Asked, st.just(0.0), st.integers(1, 20), st.integers(1, 20), st.integers(20, 40)),
    ),
    min_size=1,
    max_size=4,
)
"""Requests to be placed on step boundaries, or beside them; see checks.with_arrivals_on_boundaries."""

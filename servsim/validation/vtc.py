"""VTC: two tenants who both want more than they get are served alike, within a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from servsim.metrics.token_times import all_token_times
from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, bounded, policy_variant

__all__ = ["VTC"]

_PROMPT_PRICE, _OUTPUT_PRICE = 1, 2
_BACKLOGGED_S = 60.0  # from then on both tenants have requests waiting, until the last arrival


def _measure(result: Result) -> Mapping[str, float]:
    """The largest difference in service between the two tenants over any stretch of time, and its bound."""
    requests = result.records.requests
    row = {int(one): place for place, one in enumerate(requests["request_id"])}
    when, service = [], []
    for request, times in all_token_times(result.records):
        place = row[request]
        side = 1 if requests["tenant"][place] == 0 else -1
        when.append(np.concatenate([[requests["scheduled_s"][place]], times]))
        charged = np.full(len(times) + 1, side * _OUTPUT_PRICE)
        charged[0] = side * _PROMPT_PRICE * requests["prompt_tokens"][place]
        service.append(charged)
    order = np.argsort(np.concatenate(when), kind="stable")
    times_s = np.concatenate(when)[order]
    ahead = np.cumsum(np.concatenate(service)[order])
    backlogged = ahead[(times_s > _BACKLOGGED_S) & (times_s < requests["arrival_s"].max())]
    memory = result.scenario.instance.memory
    tokens = (memory.num_blocks or 0) * memory.block_size
    bound = 2 * max(_PROMPT_PRICE * int(requests["prompt_tokens"].max()), _OUTPUT_PRICE * tokens)
    # A difference over a stretch is one of two values of the lead.
    largest = float(backlogged.max() - backlogged.min()) if len(backlogged) else float("nan")
    return {"difference": largest, "bound": float(bound)}


def _find(measured: Measured) -> Sequence[Finding]:
    bound = measured["vtc"]["bound"]
    fair, unfair = measured["vtc"]["difference"], measured["fcfs"]["difference"]
    return [
        bounded("largest difference in service, vtc", f"at most {bound:,.0f}", fair, f"{fair:,.0f}", at_most=bound),
        bounded("the same under fcfs, in ten minutes", "not bounded", unfair, f"{unfair:,.0f}", at_least=bound),
    ]


VTC = Claim(
    name="vtc",
    statement="Under VTC the service of two backlogged tenants differs by at most 2 max(w_p P, w_q M), "
    "under fcfs without bound",
    source="Sheng et al., Fairness in Serving Large Language Models, OSDI 2024 (arXiv 2401.00588)",
    scenario="papers/vtc",
    variants=tuple(
        policy_variant(policy, {"policy": policy, "max_num_seqs": 256, "max_num_batched_tokens": 2048})
        for policy in ("vtc", "fcfs")
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "service is w_p = 1 a prompt token and w_q = 2 an output token; M = 10,000 tokens of KV, prompts of 256",
        "an L4 in place of the paper's A10G, Poisson arrivals; vLLM v1's batches, which preempt, in place of S-LoRA's",
    ),
)

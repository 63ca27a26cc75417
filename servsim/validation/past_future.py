"""Past-Future: more goodput under heavy load than conservative and aggressive admission, with few evictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, bounded, factor, policy_variant, ratio
from servsim.validation.measures import evictions, within

__all__ = ["PAST_FUTURE"]

_USERS = (100, 200, 300, 400)
_ADMISSIONS = {
    "past_future": "past_future",
    "conservative": "lightllm",
    "aggressive": "anyone",
    "LightLLM's aggressive mode": "{name: lightllm, mode: aggressive}",
}
_SCHEDULER = {"policy": "combined", "batching": "lightllm", "max_num_seqs": 1024, "max_num_batched_tokens": 8192}
_TTFT_S, _GAP_S = 10.0, 1.5


def _measure(result: Result) -> Mapping[str, float]:
    return {"goodput": within(result, _TTFT_S, _GAP_S), "evictions": evictions(result)}


def _label(policy: str, users: int) -> str:
    return f"{policy}, {users} users"


def _heavy(measured: Measured) -> int:
    """The heaviest load at which Past-Future still has half of its best goodput: what lies beyond serves nobody."""
    goodput = {users: measured[_label("past_future", users)]["goodput"] for users in _USERS}
    best = max(goodput.values())
    return max((users for users, found in goodput.items() if found >= best / 2), default=_USERS[0])


def _find(measured: Measured) -> Sequence[Finding]:
    users = _heavy(measured)
    ours = measured[_label("past_future", users)]
    best = {policy: max(measured[_label(policy, one)]["goodput"] for one in _USERS) for policy in _ADMISSIONS}
    found = []
    for rival in ("conservative", "aggressive", "LightLLM's aggressive mode"):
        times = ratio(ours["goodput"], measured[_label(rival, users)]["goodput"])
        over_all = ratio(best["past_future"], best[rival])
        what = f"goodput over {rival}, {users} users (best over all loads: {over_all:.2f} x)"
        found.append(factor(what, "up to 2-3 x", times, 2, 3))
    rate, rival_rate = ours["evictions"], measured[_label("aggressive", users)]["evictions"]
    shown = f"{100 * rate:.1f} (aggressive: {100 * rival_rate:.1f})"
    found.append(bounded(f"evictions of 100 requests, {users} users", "few", rate, shown, at_most=0.05))
    return found


PAST_FUTURE = Claim(
    name="past-future",
    statement="Past-Future has up to 2-3 times the goodput of conservative and aggressive admission under heavy load, "
    "and few evictions",
    source="Gong et al., Past-Future Scheduler for LLM Serving under SLA Guarantees, ASPLOS 2025 (arXiv 2507.10150)",
    scenario="papers/past-future",
    variants=tuple(
        policy_variant(
            _label(policy, users),
            {**_SCHEDULER, "admission": admission},
            workload__arrivals__concurrency=users,
        )
        for policy, admission in _ADMISSIONS.items()
        for users in _USERS
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "ShareGPT-like lognormal lengths, 2,048 declared; the paper's own mixes were not at hand",
        f"goodput: requests/s with TTFT <= {_TTFT_S:g} s and no gap above {_GAP_S:g} s, as we understand the paper",
        "heavy: the most users at which Past-Future keeps half of its best goodput",
        "aggressive: whoever fits now is let in, as in vLLM; all on LightLLM's batches of whole prompts",
        "few: at most 5 evictions of 100 requests",
    ),
    likely_reason="in a closed loop goodput falls off a cliff where the queue alone takes longer than the bound on "
    "TTFT, and rivals that reserve too much reach it first; whoever is evicted is computed again fast enough to keep "
    "the bounds, since these prompts and outputs are short",
)

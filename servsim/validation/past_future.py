"""Past-Future: more goodput under heavy load than conservative and aggressive admission, with few evictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servsim.simulation import Result
from servsim.validation.claim import Claim, Finding, Measured, factor, kept, policy_variant
from servsim.validation.measures import evictions, within

__all__ = ["PAST_FUTURE"]

_USERS = (100, 200, 300, 400, 600)
_POLICIES = {
    "past_future": {"policy": "combined", "admission": "past_future"},
    "conservative": {"policy": "combined", "admission": "lightllm"},
    "aggressive": {"policy": "combined", "admission": "anyone"},
    "aggressive mode of LightLLM": {"policy": "combined", "admission": "{name: lightllm, mode: aggressive}"},
}
_TTFT_S, _GAP_S = 10.0, 1.5


def _measure(result: Result) -> Mapping[str, float]:
    return {"goodput": within(result, _TTFT_S, _GAP_S), "evictions": evictions(result)}


def _label(policy: str, users: int) -> str:
    return f"{policy}, {users} users"


def _heavy(measured: Measured) -> int:
    """The heaviest load at which Past-Future still has half of its best goodput: what lies beyond serves nobody."""
    goodput = {users: measured[_label("past_future", users)]["goodput"] for users in _USERS}
    return max(users for users, found in goodput.items() if found >= max(goodput.values()) / 2)


def _find(measured: Measured) -> Sequence[Finding]:
    users = _heavy(measured)
    ours = measured[_label("past_future", users)]
    found = []
    for rival in ("conservative", "aggressive", "aggressive mode of LightLLM"):
        theirs = measured[_label(rival, users)]["goodput"]
        ratio = ours["goodput"] / theirs if theirs else float("inf")
        best = max(measured[_label("past_future", one)]["goodput"] for one in _USERS) / max(
            measured[_label(rival, one)]["goodput"] for one in _USERS
        )
        what = f"goodput over {rival}, {users} users (best over all loads: {best:.2f} x)"
        found.append(factor(what, "up to 2-3 x", ratio, 2, 3))
    rate, rival_rate = ours["evictions"], measured[_label("aggressive", users)]["evictions"]
    shown = f"{100 * rate:.1f} (aggressive: {100 * rival_rate:.1f})"
    found.append(kept(f"evictions of 100 requests, {users} users", "few", rate, 0.05, shown))
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
            keys["policy"],
            instance__scheduler__batching="lightllm",
            instance__scheduler__admission=keys["admission"],
            workload__arrivals__concurrency=users,
        )
        for policy, keys in _POLICIES.items()
        for users in _USERS
    ),
    measure=_measure,
    find=_find,
    assumptions=(
        "ShareGPT-like lognormal lengths, 2,048 declared; the paper's own mixes were not at hand",
        f"goodput: requests/s with TTFT <= {_TTFT_S:g} s and no gap above {_GAP_S:g} s",
        "aggressive: whoever fits now is let in, as in vLLM; all on LightLLM's batches of whole prompts",
        "few: at most 5 evictions of 100 requests",
    ),
)

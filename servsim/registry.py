"""Plug-ins by name: a name leads to ``module:object``, imported when somebody asks for it.

servsim's own plug-ins are listed here; other packages add theirs through the entry points
``servsim.schedulers``, ``servsim.allocators``, ``servsim.predictors``, ``servsim.trace_readers``
and ``servsim.routers``, and a script through :func:`register`, as it does orders, admission rules and batchings,
the parts of the scheduler ``combined``. A later registration of a name
wins over an earlier one, so that a built-in plug-in can be replaced.
"""

from __future__ import annotations

import importlib
from typing import Any

from servsim.errors import ScenarioError, suggestion

__all__ = ["KINDS", "names", "register", "resolve"]

_BUILT_IN: dict[str, dict[str, str]] = {
    "schedulers": {
        "ageing": "servsim.scheduler.lengths.ageing:Ageing",
        "clairvoyant": "servsim.scheduler.lengths.clairvoyant:Clairvoyant",
        "combined": "servsim.scheduler.combined:Combined",
        "deficit_round_robin": "servsim.scheduler.fairness.deficit_round_robin:DeficitRoundRobin",
        "edf": "servsim.scheduler.urgency.edf:Edf",
        "faster_transformer": "servsim.scheduler.engines.faster_transformer:FasterTransformer",
        "fastserve": "servsim.scheduler.lengths.fastserve:FastServe",
        "fcfs": "servsim.scheduler.engines.fcfs:Fcfs",
        "hrrn": "servsim.scheduler.lengths.hrrn:Hrrn",
        "lcf": "servsim.scheduler.fairness.vtc:Lcf",
        "least_slack": "servsim.scheduler.urgency.least_slack:LeastSlack",
        "lightllm": "servsim.scheduler.engines.lightllm:LightLlm",
        "ltr": "servsim.scheduler.lengths.ltr:Ltr",
        "orca": "servsim.scheduler.engines.orca:Orca",
        "past_future": "servsim.scheduler.engines.past_future:PastFuture",
        "priority_trace": "servsim.scheduler.urgency.priority_trace:PriorityTrace",
        "rpm_limit": "servsim.scheduler.fairness.rpm_limit:RpmLimit",
        "s3": "servsim.scheduler.lengths.s3:S3",
        "sarathi": "servsim.scheduler.engines.sarathi:Sarathi",
        "serial": "servsim.scheduler.engines.serial:Serial",
        "sglang": "servsim.scheduler.engines.sglang:Sglang",
        "shedding": "servsim.scheduler.urgency.shedding:Shedding",
        "shortest_prompt_first": "servsim.scheduler.lengths.shortest_prompt_first:ShortestPromptFirst",
        "sjf": "servsim.scheduler.lengths.sjf:Sjf",
        "slo_gain": "servsim.scheduler.urgency.slo_gain:SloGain",
        "slos_serve": "servsim.scheduler.urgency.slos_serve:SlosServe",
        "srpt": "servsim.scheduler.lengths.srpt:Srpt",
        "ssjf": "servsim.scheduler.lengths.ssjf:Ssjf",
        "tier_admission": "servsim.scheduler.urgency.tier_admission:TierAdmission",
        "trail": "servsim.scheduler.lengths.trail:Trail",
        "vllm_v0": "servsim.scheduler.engines.vllm_v0:VllmV0",
        "vllm_v1": "servsim.scheduler.engines.vllm_v1:VllmV1",
        "vtc": "servsim.scheduler.fairness.vtc:Vtc",
        "vtc_predictive": "servsim.scheduler.fairness.vtc:VtcPredictive",
    },
    "orders": {
        "ageing": "servsim.scheduler.lengths.ageing:Ageing",
        "clairvoyant": "servsim.scheduler.lengths.clairvoyant:Clairvoyant",
        "deficit_round_robin": "servsim.scheduler.fairness.deficit_round_robin:DeficitRoundRobin",
        "dfs_weight": "servsim.scheduler.engines.sglang_cache_orders:DfsWeightOrder",
        "edf": "servsim.scheduler.urgency.edf:Edf",
        "fcfs": "servsim.scheduler.combined:ArrivalFirst",
        "hrrn": "servsim.scheduler.lengths.hrrn:Hrrn",
        "lcf": "servsim.scheduler.fairness.vtc:Lcf",
        "least_slack": "servsim.scheduler.urgency.least_slack:LeastSlack",
        "longest_output_first": "servsim.scheduler.engines.sglang_orders:LongestOutputOrder",
        "longest_prefix_first": "servsim.scheduler.engines.sglang_cache_orders:LongestPrefixOrder",
        "ltr": "servsim.scheduler.lengths.ltr:Ltr",
        "priority": "servsim.scheduler.engines.vllm_v1:PriorityOrder",
        "random": "servsim.scheduler.engines.sglang_orders:RandomOrder",
        "rejoin": "servsim.scheduler.engines.sglang_orders:RejoinOrder",
        "shedding": "servsim.scheduler.urgency.shedding:Shedding",
        "shortest_prefill_first": "servsim.scheduler.engines.sglang_cache_orders:ShortestPrefillOrder",
        "shortest_prompt_first": "servsim.scheduler.lengths.shortest_prompt_first:ShortestPromptFirst",
        "sjf": "servsim.scheduler.lengths.sjf:Sjf",
        "srpt": "servsim.scheduler.lengths.srpt:Srpt",
        "ssjf": "servsim.scheduler.lengths.ssjf:Ssjf",
        "trail": "servsim.scheduler.lengths.trail:Trail",
        "vtc": "servsim.scheduler.fairness.vtc:Vtc",
        "vtc_predictive": "servsim.scheduler.fairness.vtc:VtcPredictive",
    },
    "admissions": {
        "anyone": "servsim.scheduler.combined:AnyoneAdmission",
        "lightllm": "servsim.scheduler.engines.lightllm:LightLlmAdmission",
        "past_future": "servsim.scheduler.engines.past_future:PastFutureAdmission",
        "reservation": "servsim.scheduler.engines.reservation:Reservation",
        "sglang": "servsim.scheduler.engines.sglang:SglangAdmission",
    },
    "batchings": {
        "displacing": "servsim.scheduler.displacing:DisplacingBatching",
        "faster_transformer": "servsim.scheduler.engines.faster_transformer:FasterTransformer",
        "lightllm": "servsim.scheduler.engines.lightllm_batching:LightLlmBatching",
        "orca": "servsim.scheduler.engines.orca:Orca",
        "sarathi": "servsim.scheduler.engines.sarathi:Sarathi",
        "serial": "servsim.scheduler.engines.serial:Serial",
        "sglang": "servsim.scheduler.engines.sglang_batching:SglangBatching",
        "vllm_v0": "servsim.scheduler.engines.vllm_v0:VllmV0",
        "vllm_v1": "servsim.scheduler.engines.vllm_v1:TokenBudgetBatching",
    },
    "allocators": {
        "bounded": "servsim.memory.bounded:BoundedAllocator",
        "contiguous": "servsim.memory.contiguous:ContiguousAllocator",
        "paged": "servsim.memory.paged:PagedAllocator",
        "pensieve": "servsim.memory.pensieve:PensieveAllocator",
        "prefix_blocks": "servsim.memory.prefix_blocks:PrefixBlocksAllocator",
        "radix": "servsim.memory.radix:RadixAllocator",
        "vattention": "servsim.memory.vattention:VAttentionAllocator",
    },
    "predictors": {
        "bucket": "servsim.scheduler.predictors:Bucket",
        "clairvoyant_classes": "servsim.scheduler.predictors:ClairvoyantClasses",
        "constant": "servsim.scheduler.predictors:Constant",
        "history": "servsim.scheduler.predictors:History",
        "lognormal_noise": "servsim.scheduler.predictors:LognormalNoise",
        "mae_noise": "servsim.scheduler.predictors:MaeNoise",
        "oracle": "servsim.scheduler.predictors:Oracle",
        "rank_accuracy": "servsim.scheduler.predictors:RankAccuracy",
        "trained": "servsim.scheduler.predictors:Trained",
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
_PARTS = ("orders", "admissions", "batchings")  # of the scheduler ``combined``; they have no entry points

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
    if kind in _PARTS:
        return {}
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

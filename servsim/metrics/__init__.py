"""Tables made of facts: latencies, attainment, use of batches and memory, and their summary."""

from servsim.metrics.crossing import rate_at
from servsim.metrics.latencies import REQUEST_COLUMNS, Latencies, derive, latencies
from servsim.metrics.slo import BOUNDS, Judgement, Slo, bounds_by_class
from servsim.metrics.stationarity import steady_state
from servsim.metrics.statistics import PERCENTILES, describe, mean_interval
from servsim.metrics.summary import SCHEMA_VERSION, summarise
from servsim.metrics.token_times import TokenGaps, all_token_times, inter_token_latencies, step_ends, token_times

__all__ = [
    "BOUNDS",
    "PERCENTILES",
    "REQUEST_COLUMNS",
    "SCHEMA_VERSION",
    "Judgement",
    "Latencies",
    "Slo",
    "TokenGaps",
    "all_token_times",
    "bounds_by_class",
    "derive",
    "describe",
    "inter_token_latencies",
    "latencies",
    "mean_interval",
    "rate_at",
    "steady_state",
    "step_ends",
    "summarise",
    "token_times",
]

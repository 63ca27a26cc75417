"""Shortest job first with an oracle, one at a time: M/G/1 with non-preemptive priorities (Cobham's formula)."""

from __future__ import annotations

import numpy as np
from queues import assert_close, rate_per_s, run, services_s, waits_s

LENGTHS = {"distribution": "uniform", "min": 1, "max": 6}
LOAD = 0.75
SEEDS = range(4)


def test_each_length_waits_as_the_priority_formula_says() -> None:
    """``W_k = W_0 / ((1 - s_<k) (1 - s_<=k))``, W_0 the mean residual work, s the loads of shorter lengths; to 8 %.

    Rates, loads and residual work are those of the runs themselves.
    """
    runs = [run(LENGTHS, LOAD / 3.5, seed=seed, policy="sjf", num_requests=30_000) for seed in SEEDS]
    lengths = [one.requests["output_tokens"] for one in runs]
    rate = np.mean([rate_per_s(one) for one in runs])
    service = np.concatenate([services_s(one) for one in runs])
    residual_s = rate * (service**2).mean() / 2
    everything = np.concatenate(lengths)
    loads = [rate * np.mean(np.where(everything == length, service, 0)) for length in range(1, 7)]
    for length in range(1, 7):
        shorter, upto = sum(loads[: length - 1]), sum(loads[:length])
        expected = residual_s / ((1 - shorter) * (1 - upto))
        waits = [waits_s(one)[had == length] for one, had in zip(runs, lengths, strict=True)]
        assert_close(waits, float(expected), relative=0.08)


def test_order_changes_who_waits_but_not_the_work_that_waits() -> None:
    """Kleinrock's conservation law: ``sum of load_k W_k`` is that of fcfs on the same requests; here to 1e-9."""
    fcfs, sjf = (run(LENGTHS, LOAD / 3.5, policy=policy, num_requests=10_000) for policy in ("fcfs", "sjf"))
    # The integral of the unfinished work of those waiting: an area under one and the same curve.
    assert waits_s(sjf).mean() < 0.85 * waits_s(fcfs).mean()
    work = [float((services_s(one) * waits_s(one)).sum()) for one in (fcfs, sjf)]
    np.testing.assert_allclose(work[0], work[1], rtol=1e-9)

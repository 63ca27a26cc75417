"""Summaries of toy runs, and a terminal to print them on."""

from __future__ import annotations

from functools import cache
from io import StringIO
from types import SimpleNamespace

from made_up_run import made_up_run
from rich.console import Console

from servsim.metrics import summarise

CONSOLE_WIDTH = 80
BOUNDS = SimpleNamespace(ttft_s=0.1, tpot_s=0.03, e2e_s=None)


def scenario(seed=0, slo=BOUNDS, warmup_s=0.0):
    cut = SimpleNamespace(warmup_s=warmup_s, cooldown_s=0.0)
    return SimpleNamespace(
        name="made-up",
        seed=seed,
        num_engines=1,
        slo=slo,
        metrics=cut,
        model="a-model",
        to_yaml=lambda: "name: made-up\n",
    )


@cache
def summary(seed, rate_per_s=14.0, max_seqs=8, preemption=0.02, rejected=0.0, slo=BOUNDS, warmup_s=0.0):
    run = made_up_run(seed, 150, rate_per_s, preemption=preemption, max_seqs=max_seqs, rejected=rejected)
    return summarise(run.records, scenario(seed, slo, warmup_s), calibration="measured", version="0")


def printed(table):
    console = Console(file=StringIO(), width=CONSOLE_WIDTH)
    console.print(table)
    return console.file.getvalue()

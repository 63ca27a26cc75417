"""Many runs: grids of variants and seeds, spread over processes, and searches over the rate."""

from servsim.sweep.capacity import Bracket, Probe, Search, search_capacity
from servsim.sweep.grid import Axis, Variant, parse_axis, variants
from servsim.sweep.load import LoadKnob, load_knob
from servsim.sweep.runs import Batch, Failure, Job, execute, plan_jobs, run_job

__all__ = [
    "Axis",
    "Batch",
    "Bracket",
    "Failure",
    "Job",
    "LoadKnob",
    "Probe",
    "Search",
    "Variant",
    "execute",
    "load_knob",
    "parse_axis",
    "plan_jobs",
    "run_job",
    "search_capacity",
    "variants",
]

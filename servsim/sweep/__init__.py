"""Many runs: grids of variants and seeds, spread over processes, and searches over the rate."""

from servsim.sweep.capacity import Bracket, Probe, Search, search_capacity
from servsim.sweep.folder import GRID_FILE, GridFolder, GridRun, clear_unfinished, read_grid, write_grid
from servsim.sweep.grid import Axis, Variant, parse_axis, variants
from servsim.sweep.load import LoadKnob, load_knob
from servsim.sweep.runs import Batch, Failure, Job, execute, plan_jobs, run_job

__all__ = [
    "GRID_FILE",
    "Axis",
    "Batch",
    "Bracket",
    "Failure",
    "GridFolder",
    "GridRun",
    "Job",
    "LoadKnob",
    "Probe",
    "Search",
    "Variant",
    "clear_unfinished",
    "execute",
    "load_knob",
    "parse_axis",
    "plan_jobs",
    "read_grid",
    "run_job",
    "search_capacity",
    "variants",
    "write_grid",
]

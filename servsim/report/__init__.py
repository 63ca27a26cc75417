"""Tables, figures and files made of metrics; what needs rich or matplotlib is in ``tables`` and ``figures``."""

from servsim.report.comparison import METRICS, Cell, ComparisonRow, Metric, compare_rows, figures_of, write_comparison
from servsim.report.folder import RunFolder, check_free, json_bytes, read_run, result_folder, write_run
from servsim.report.sweeping import RateCurve, SweepRun, rate_curves, sweep_rows, write_sweep
from servsim.report.vllm_bench import BenchResult, bench_result, read_bench, write_bench

__all__ = [
    "METRICS",
    "BenchResult",
    "Cell",
    "ComparisonRow",
    "Metric",
    "RateCurve",
    "RunFolder",
    "SweepRun",
    "bench_result",
    "check_free",
    "compare_rows",
    "figures_of",
    "json_bytes",
    "rate_curves",
    "read_bench",
    "read_run",
    "result_folder",
    "sweep_rows",
    "write_bench",
    "write_comparison",
    "write_run",
    "write_sweep",
]

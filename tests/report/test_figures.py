import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_run import made_up_run
from made_up_summaries import scenario, summary

from servsim.metrics import summarise
from servsim.report.comparison import compare_rows
from servsim.report.figures import (
    Course,
    Latency,
    draw_comparison,
    draw_distributions,
    draw_measured,
    draw_metric,
    draw_rates,
    draw_timeline,
    measured_latency,
    save,
    simulated_course,
    simulated_latency,
)
from servsim.report.figures.timeline import binned, present
from servsim.report.folder import read_run, write_run
from servsim.report.sweeping import MetricCurve, RateCurve
from servsim.report.vllm_bench import bench_result, read_bench, write_bench

CURVES = [
    RateCurve("fcfs", (1.0, 2.0, 4.0), (1.0, 0.95, 0.5), (0.0, 0.01, 0.1), (1.0, 1.9, 2.0), (0.1, 0.1, 0.4)),
    RateCurve("sjf", (1.0, 2.0, 4.0), (1.0, 1.0, 0.95), (None,) * 3, (1.0, 2.0, 3.8), (None,) * 3),
]
MISSES = [MetricCurve("radix", (100.0, 1000.0, 1100.0, 4000.0), (0.9, 0.5, 0.4, 0.02), (0.1, None, None, None))]
RUN = made_up_run(seed=8, instances=2, preemption=0.1)
BOUNDS = {"chat": {"ttft_s": 0.2, "tpot_s": 0.02}, "batch": {"ttft_s": 1.0}}


def latency(label, seed=0):
    rng = np.random.default_rng(seed)
    return Latency(label, {name: rng.lognormal(-1, 1, 500) for name in ("ttft_s", "tpot_s", "e2e_s")})


def course(run):
    requests = run.records.requests
    inside = ~np.isnan(requests["scheduled_s"])
    return Course(run.records.strides, requests["arrival_s"][inside], requests["scheduled_s"][inside])


NOTHING = Latency("nothing", {name: np.empty(0) for name in ("ttft_s", "tpot_s", "e2e_s")})
FIGURES = {
    "rates": lambda: draw_rates(CURVES),
    "no rates": lambda: draw_rates([]),
    "distributions": lambda: draw_distributions([latency("a"), latency("b", 1)], BOUNDS),
    "one distribution": lambda: draw_distributions([latency("a")]),
    "empty distribution": lambda: draw_distributions([NOTHING, latency("a")], BOUNDS),
    "measured": lambda: draw_measured(latency("measured"), [latency("simulated", 1), NOTHING]),
    "timeline": lambda: draw_timeline({"a": course(RUN), "b": course(RUN)}, window_s=(1.0, 5.0)),
    "empty timeline": lambda: draw_timeline({"a": course(made_up_run(rejected=1.0))}),
    "comparison": lambda: draw_comparison(compare_rows({name: [summary(0), summary(1)] for name in "abc"})),
    "metric": lambda: draw_metric(MISSES, "instance.memory.num_blocks", "prefix_cache.miss_ratio"),
    "one seed, no slo": lambda: draw_comparison(compare_rows({"a": [summary(0, slo=None)]})),
    "nothing finished": lambda: draw_comparison(compare_rows({name: [summary(0, rejected=1.0)] for name in "ab"})),
}


@pytest.mark.parametrize("kind", FIGURES)
def test_every_figure_is_drawn_the_same_twice(tmp_path, kind):
    formats = ("png", "svg") if kind == "rates" else ("svg",)
    written = [save(FIGURES[kind](), tmp_path / name, formats) for name in ("first", "second")]
    assert [path.name for path in written[0]] == [f"first.{suffix}" for suffix in formats]
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_drawing_leaves_no_trace_in_matplotlibs_settings(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    save(FIGURES["rates"](), tmp_path / "figure")
    assert dict(mpl.rcParams) == before


def test_the_rate_at_ninety_percent_is_marked_or_said_to_lie_outside():
    left = draw_rates(CURVES).axes[0]
    texts = [text.get_text() for text in left.texts]
    assert texts == ["requests/s at 90 %", "fcfs: 2.22", "sjf: above 4"]


def evenly(low, high):
    """Latencies whose TTFT spans this range in ms, evenly on a logarithmic axis."""
    values = np.geomspace(low, high, 50) / 1e3
    return Latency("a", dict.fromkeys(("ttft_s", "tpot_s", "e2e_s"), values))


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [
        (50, 750, {"50", "100", "200", "500"}),
        (0.03, 0.4, {"0.05", "0.1", "0.2"}),
        (20, 1900, {"30", "100", "300", "1000"}),
        (1000, 99_000, {"1000", "10000"}),
        (9000, 360_000, {"10000", "100000"}),
        (20, 3000, {r"$\mathdefault{10^{2}}$", r"$\mathdefault{10^{3}}$"}),
    ],
)
def test_labels_of_a_logarithmic_axis_stand_beside_each_other(low, high, some):
    figure = draw_distributions([evenly(low, high)])
    figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    shown = [tick for tick in axis.get_ticklabels(which="both") if tick.get_text()]
    left, right = figure.axes[0].get_xlim()
    seen = [tick for tick in shown if left <= tick.get_position()[0] <= right]
    assert some <= {tick.get_text() for tick in seen}
    boxes = sorted((box.x0, box.x1) for box in (tick.get_window_extent() for tick in seen))
    assert all(one[1] < other[0] for one, other in itertools.pairwise(boxes))


def test_every_axis_carries_its_unit():
    for kind in ("rates", "distributions", "measured"):
        for axes in FIGURES[kind]().axes:
            assert any(unit in axes.get_xlabel() for unit in ("(requests/s)", "(ms)", "(s)"))


def test_a_metric_is_drawn_in_its_unit_over_what_was_varied():
    (axes,) = FIGURES["metric"]().axes
    assert axes.get_xlabel() == "KV blocks (num_blocks)"
    assert axes.get_ylabel() == "prompt tokens not found cached (%)"
    assert list(axes.lines[0].get_ydata()) == pytest.approx([90, 50, 40, 2])
    assert axes.get_ylim() == (0, 104)
    # 1,100 stands too close to 1,000 for a number of its own.
    assert [text.get_text() for text in axes.get_xticklabels()] == ["100", "1,000", "4,000"]


def test_a_metric_is_drawn_on_a_logarithmic_axis_where_it_spans_more_than_a_decade():
    far, near = (
        draw_metric([MetricCurve("a", (1.0, 2.0), y, (None, None))], "some.path", path).axes[0]
        for y, path in (((0.1, 2.0), "ttft_s.p99"), ((0.11, 2.0), "some.figure"))
    )
    assert (far.get_yscale(), far.get_ylabel()) == ("log", "TTFT p99 (ms)")
    assert (near.get_yscale(), near.get_ylabel(), near.get_xlabel()) == ("linear", "some.figure", "some.path")
    assert near.get_ylim()[0] == 0


def test_bins_hold_time_weighted_means_with_idle_time_as_zero():
    strides = {
        "instance": np.array([0, 0, 1]),
        "start_s": np.array([0.0, 5.0, 0.0]),
        "end_s": np.array([2.0, 6.0, 4.0]),
    }
    _, means = binned(strides, np.array([3.0, 6.0, 1.0]), 8.0, bins=4)
    np.testing.assert_allclose(means, [3.0 + 1.0, 1.0, 6.0 / 2, 0.0])


def test_how_many_were_there_is_a_mean_over_time():
    _, means = present(np.array([0.0, 1.0, 3.0]), np.array([3.0, 1.5, 3.0]), 4.0, bins=2)
    np.testing.assert_allclose(means, [(2.0 + 0.5) / 2, 1.0 / 2])


def test_as_many_wait_as_littles_law_says(tmp_path):
    shown = scenario()
    found = summarise(RUN.records, shown, calibration="", version="")
    write_run(tmp_path / "run", shown, RUN.records, found)
    run = read_run(tmp_path / "run")
    drawn = simulated_course(run)
    _, means = present(drawn.waiting_from_s, drawn.waiting_until_s, drawn.end_s)
    preempted = run.pauses["reason"] == "preempted"
    paused_s = (run.pauses["end_s"] - run.pauses["start_s"])[preempted].sum()
    assert means.mean() * drawn.end_s == pytest.approx(np.nansum(run.requests["queue_s"]) + paused_s)


def test_a_legend_of_long_names_stays_inside_the_figure():
    names = [f"h100-sxm, tensor_parallel_size={row}, instance.scheduler" for row in range(6)]
    figure = draw_distributions([latency(name, row) for row, name in enumerate(names)])
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_a_simulated_run_stands_beside_the_measured_one_it_was_written_as(tmp_path):
    shown = scenario()
    found = summarise(RUN.records, shown, calibration="", version="")
    write_run(tmp_path / "run", shown, RUN.records, found)
    write_bench(tmp_path / "bench.json", bench_result(RUN.records, shown, found))
    ours = simulated_latency(read_run(tmp_path / "run"))
    theirs = measured_latency(read_bench(tmp_path / "bench.json"))
    for name, values in ours.values_s.items():
        np.testing.assert_allclose(values, theirs.values_s[name], rtol=1e-6)
    notes = [text.get_text() for axes in draw_measured(theirs, [ours]).axes for text in axes.texts]
    assert len(notes) == 3 and all("+0 %" in note or "−0 %" in note for note in notes)


def test_a_run_with_a_cut_shows_its_measured_window(tmp_path):
    shown = scenario(warmup_s=2.0)
    write_run(tmp_path / "run", shown, RUN.records, summarise(RUN.records, shown, calibration="", version=""))
    found = simulated_latency(read_run(tmp_path / "run"))
    assert len(found.values_s["ttft_s"]) == (RUN.records.requests["arrival_s"] >= 2.0).sum() < 200


def test_figures_need_no_display_and_no_pyplot():
    program = "import servsim.report.figures, sys; print('matplotlib' in sys.modules)"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
    program = (
        "import sys; from servsim.report.figures import draw_rates, save; from pathlib import Path; import tempfile\n"
        "with tempfile.TemporaryDirectory() as folder: save(draw_rates([]), Path(folder) / 'figure')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"

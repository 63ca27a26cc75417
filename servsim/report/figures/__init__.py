"""Figures for a paper; matplotlib is loaded when one is drawn."""

from servsim.report.figures.bars import draw_comparison
from servsim.report.figures.distributions import (
    Latency,
    draw_distributions,
    draw_measured,
    measured_latency,
    simulated_latency,
)
from servsim.report.figures.metric_curves import draw_metric
from servsim.report.figures.rates import draw_rates
from servsim.report.figures.style import save
from servsim.report.figures.timeline import Course, draw_timeline, simulated_course

__all__ = [
    "Course",
    "Latency",
    "draw_comparison",
    "draw_distributions",
    "draw_measured",
    "draw_metric",
    "draw_rates",
    "draw_timeline",
    "measured_latency",
    "save",
    "simulated_course",
    "simulated_latency",
]

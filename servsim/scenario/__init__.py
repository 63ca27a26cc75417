"""What the user wrote: the scenario's schema, the catalogue, and errors that point at the line."""

from servsim.scenario.instance_spec import CostSpec, FixedCost, InstanceSpec, MemorySpec, RooflineCost
from servsim.scenario.json_schema import scenario_schema
from servsim.scenario.loader import load_scenario
from servsim.scenario.overrides import apply_override
from servsim.scenario.scenario import Scenario
from servsim.scenario.scheduler_spec import PredictorSpec, RouterSpec, SchedulerSpec
from servsim.scenario.slo_spec import MetricsSpec, SloBounds
from servsim.scenario.workload_spec import WorkloadSpec

__all__ = [
    "CostSpec",
    "FixedCost",
    "InstanceSpec",
    "MemorySpec",
    "MetricsSpec",
    "PredictorSpec",
    "RooflineCost",
    "RouterSpec",
    "Scenario",
    "SchedulerSpec",
    "SloBounds",
    "WorkloadSpec",
    "apply_override",
    "load_scenario",
    "scenario_schema",
]

"""Who gets tokens next: policies and predictors."""

from servsim.scheduler.batching import VllmV1Batching
from servsim.scheduler.plan import DECODE, IDLE, Plan
from servsim.scheduler.policy import UNBOUNDED, Policy, Surroundings
from servsim.scheduler.running import Running

__all__ = ["DECODE", "IDLE", "UNBOUNDED", "Plan", "Policy", "Running", "Surroundings", "VllmV1Batching"]

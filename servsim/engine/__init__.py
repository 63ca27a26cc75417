"""One instance as a SimPy process: plan, stride, commit."""

from servsim.engine.instance import Instance, Observation, Parts

__all__ = ["Instance", "Observation", "Parts"]

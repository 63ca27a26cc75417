"""One instance as a SimPy process: plan, stride, commit."""

from servsim.engine.instance import Instance
from servsim.engine.observation import Observation
from servsim.engine.parts import Parts

__all__ = ["Instance", "Observation", "Parts"]

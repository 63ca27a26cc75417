"""Several instances: routers and pools."""

from servsim.cluster.routers import Observed, RandomRouter, RoundRobin, Router
from servsim.cluster.virtual_engines import VirtualEngines

__all__ = ["Observed", "RandomRouter", "RoundRobin", "Router", "VirtualEngines"]

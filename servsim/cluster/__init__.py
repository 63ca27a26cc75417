"""Several instances: routers and pools."""

from servsim.cluster.routers import RandomRouter, RoundRobin, Router

__all__ = ["RandomRouter", "RoundRobin", "Router"]

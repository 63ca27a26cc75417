"""What a scenario was understood to mean, before anything runs."""

from servsim.setup.placing import placed
from servsim.setup.setup import Setup

__all__ = ["Setup", "placed"]

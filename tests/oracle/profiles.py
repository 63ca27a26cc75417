"""How hard the properties are tried: quickly by default, at length with HYPOTHESIS_PROFILE=thorough."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("quick", derandomize=True, **_COMMON)
settings.register_profile("thorough", derandomize=False, **_COMMON)

_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
_FACTOR = 40 if _THOROUGH else 1


def examples(count: int) -> settings:
    """So many examples, the same ones every time; forty times as many, and others every time, when thorough."""
    return settings(settings.get_profile("thorough" if _THOROUGH else "quick"), max_examples=_FACTOR * count)


#: For a search that is expected to find something: stops at the first, does not shrink it.
SEARCH = settings(settings.get_profile("quick"), max_examples=1500, phases=[Phase.generate], report_multiple_bugs=False)

"""The memories below the device that a scenario asks for, looked up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from servsim.documents import KeyPath, dotted
from servsim.errors import CapacityError, ScenarioError
from servsim.hardware import Tier, load_drive, load_link
from servsim.scenario import catalogue
from servsim.scenario.tier_spec import TierSpec
from servsim.units import format_bytes

__all__ = ["locate", "resolve_tiers", "units_held"]

_TIERS: KeyPath = ("instance", "memory", "tiers")


def resolve_tiers(tiers: Mapping[str, TierSpec], place: Callable[[KeyPath], str] = dotted) -> tuple[Tier, ...]:
    """The tiers of a scenario with their links and drives read, from near to far.

    ``place`` words where a key path was written (``Scenario.place``). Raises ScenarioError with that place
    for a link or drive that is unknown, cannot be read or is something else, and CapacityError for a tier
    that is larger than its drive.
    """
    return tuple(_resolved(name, spec, place) for name, spec in tiers.items())


def units_held(tier: Tier, unit_bytes: float, unit: str = "block") -> int:
    """How many blocks (or what ``unit`` says) of so many bytes, over all devices, a tier holds.

    Raises CapacityError if not one.
    """
    held = tier.blocks(unit_bytes)
    if not held:
        raise CapacityError(
            f"the tier '{tier.name}' of {tier.capacity_bytes} bytes does not hold one {unit} of {unit_bytes} bytes",
            remedy="give it more capacity, or leave it out",
        )
    return held


def _resolved(name: str, spec: TierSpec, place: Callable[[KeyPath], str]) -> Tier:
    at = place((*_TIERS, name, "link"))
    link = load_link(locate("links", spec.link, at), at)
    if spec.device is None:
        return Tier(name, spec.kind, spec.capacity, link)
    at = place((*_TIERS, name, "device"))
    drive = load_drive(locate("drives", spec.device, at), at)
    if spec.capacity > drive.capacity_bytes:
        raise CapacityError(
            f"{format_bytes(spec.capacity)} do not fit {drive.name}, which has {format_bytes(drive.capacity_bytes)}",
            place=place((*_TIERS, name, "capacity")),
            remedy=f"at most {drive.capacity_bytes} bytes, or a larger drive",
        )
    return Tier(name, spec.kind, spec.capacity, link, drive)


def locate(kind: str, reference: str, place: str) -> Path:
    """The file of a name or path in the catalogue of ``kind``; raises ScenarioError with ``place``."""
    try:
        return catalogue.locate(kind, reference)
    except ScenarioError as error:
        raise ScenarioError(error.message, place=place, remedy=error.remedy) from None

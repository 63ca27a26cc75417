"""Memories below the device's own, as a scenario writes them: ``memory.tiers``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from servsim.documents import KeyPath, Spec, WholeNumber, refusal
from servsim.units import parse_bytes

__all__ = ["Bytes", "TierKind", "TierSpec", "Tiers", "tier_references"]

TierKind = Literal["cpu", "cxl", "ssd", "remote"]
"""Host DRAM, memory behind CXL, an SSD, memory of another host."""

_KINDS: tuple[str, ...] = get_args(TierKind)
_OF_THE_DEVICE = ("device", "gpu", "hbm")
_LARGEST = 1 << 60
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def _in_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except ValueError as error:
        message, _, remedy = str(error).partition("; ")
        raise refusal(message, remedy=remedy) from None
    except OverflowError:
        raise refusal(f"'{value}' is more bytes than can be counted", remedy="write for example 512 GiB") from None


Bytes = Annotated[
    WholeNumber,
    BeforeValidator(_in_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
"""A number of bytes, plain or as text: ``512 GiB``, ``80 GB``."""


class TierSpec(Spec):
    """One memory that holds what the device's own has no room for, and the link over which it is reached."""

    kind: TierKind = Field(description="What it is: cpu, cxl, ssd or remote; by default the tier's name.")
    capacity: Bytes = Field(gt=0, le=_LARGEST, description="How much KV it holds, in bytes, or as text: 512 GiB.")
    link: str = Field(min_length=1, description="How it is reached: a link (servsim list links), or a path.")
    device: str | None = Field(
        None, min_length=1, description="The drive (servsim list drives), or a path. An ssd needs one."
    )

    @model_validator(mode="after")
    def _check_device(self) -> TierSpec:
        if self.kind == "ssd" and self.device is None:
            raise refusal("an ssd tier needs its drive", remedy="add for example device: samsung-pm9a3", at=("device",))
        if self.kind in ("cpu", "cxl") and self.device is not None:
            remedy = "leave device out, or write kind: ssd"
            raise refusal(f"a {self.kind} tier is no drive", remedy=remedy, at=("device",))
        return self


def _with_kinds(value: Any) -> Any:
    """Names checked, and a tier that is named for a kind said to be of it."""
    if not isinstance(value, Mapping):
        return value
    tiers: dict[Any, Any] = {}
    for name, tier in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise refusal(f"{name!r} cannot be the name of a tier", remedy="use a-z, 0-9, dashes", at=(name,))
        if name in _OF_THE_DEVICE:
            remedy = "gpu_memory_utilization and num_blocks size the device's own memory"
            raise refusal(f"'{name}' is no tier below the device", remedy=remedy, at=(name,))
        if isinstance(tier, Mapping) and "kind" not in tier:
            if name not in _KINDS:
                remedy = f"add kind: one of {', '.join(_KINDS)}"
                raise refusal(f"the tier '{name}' says not what it is", remedy=remedy, at=(name,))
            tier = {"kind": name, **tier}
        tiers[name] = tier
    return tiers


def _check_names(tiers: dict[str, TierSpec]) -> dict[str, TierSpec]:
    for name, tier in tiers.items():
        if name in _KINDS and tier.kind != name:
            remedy = f"write kind: {name}, or give the tier another name"
            raise refusal(f"the tier '{name}' is of kind {tier.kind}", remedy=remedy, at=(name, "kind"))
    return tiers


Tiers = Annotated[dict[str, TierSpec], BeforeValidator(_with_kinds), AfterValidator(_check_names)]
"""Tiers by name, from near to far: what a nearer one has no room for goes to the next."""


def tier_references(tiers: Mapping[str, TierSpec]) -> Iterator[tuple[KeyPath, str, str]]:
    """Every link and drive that tiers name: its key path, ``links`` or ``drives``, and the name or path."""
    for name, tier in tiers.items():
        yield (name, "link"), "links", tier.link
        if tier.device is not None:
            yield (name, "device"), "drives", tier.device

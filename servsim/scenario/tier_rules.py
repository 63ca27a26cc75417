"""What must go together where there are memories below the device: allocator, scheduler and tiers."""

from __future__ import annotations

from servsim.documents import refusal
from servsim.scenario.instance_spec import InstanceSpec
from servsim.scenario.plug_in import plug_ins_with
from servsim.scenario.scheduler_spec import batching_of

__all__ = ["check_tiers"]


def check_tiers(instance: InstanceSpec, *, grouped: bool) -> None:
    """Tiers are for an allocator that keeps KV in them, or else for a policy that swaps to the first one.

    ``grouped`` says whether requests have several outputs, which such a policy swaps whatever it does with others.
    """
    memory, scheduler = instance.memory, instance.scheduler
    tiers = ("instance", "memory", "tiers")
    batching = batching_of(scheduler)
    parameters = batching.spec.parameters
    taken = getattr(memory.plug_in, "uses_tiers", False)
    if taken or not memory.tiers:
        if getattr(parameters, "swap_copies", None) == "async":
            why = f"the tiers are those of the allocator {memory.allocator}" if taken else "there is no tier to swap to"
            remedy = "add memory.tiers to the allocator paged, or leave swap_copies out"
            raise refusal(why, remedy=remedy, at=(*batching.place, "swap_copies"))
        return
    if not getattr(batching.spec.plug_in, "swaps", False):
        able, swapping = plug_ins_with(memory.kind, "uses_tiers"), plug_ins_with(scheduler.kind, "swaps")
        raise refusal(
            f"the allocator {memory.allocator} keeps nothing below the device, "
            f"and the policy {batching.name} swaps nothing",
            remedy=f"use the allocator {able} or the policy {swapping}, or leave tiers out",
            at=tiers,
        )
    if not grouped and not getattr(parameters, "swapping", True):
        message = f"the policy {batching.name} swaps nothing as it is set to recompute"
        raise refusal(message, remedy="set it to swap or auto, or leave tiers out", at=tiers)
    if len(memory.tiers) > 1:
        remedy = f"keep one, or use the allocator {plug_ins_with(memory.kind, 'uses_tiers')}"
        raise refusal(f"{len(memory.tiers)} tiers, but a policy swaps to one", remedy=remedy, at=tiers)
    fields = {} if parameters is None else type(parameters).model_fields
    for name in getattr(parameters, "told_by_tier", ()):
        if getattr(parameters, name) != fields[name].default:
            remedy = f"leave {name} out: capacity and link of memory.tiers and the model tell it"
            raise refusal("there is a tier to swap to", remedy=remedy, at=(*batching.place, name))

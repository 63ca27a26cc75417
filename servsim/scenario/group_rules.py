"""What must go together for requests with several outputs: workload, scheduler and memory."""

from __future__ import annotations

from servsim.documents import refusal
from servsim.scenario.group_spec import forked_outputs
from servsim.scenario.instance_spec import InstanceSpec
from servsim.scenario.plug_in import plug_ins_with
from servsim.scenario.scheduler_spec import batching_of
from servsim.scenario.workload_spec import SyntheticWorkload, TraceWorkload

__all__ = ["check_groups", "sequences_each"]


def sequences_each(workload: SyntheticWorkload | TraceWorkload) -> tuple[int, str]:
    """How many sequences a request has, and the key that says so."""
    if workload.beam_search is not None:
        return workload.beam_search.width, "beam_search"
    return forked_outputs(workload.samples), "samples"


def check_groups(workload: SyntheticWorkload | TraceWorkload, instance: InstanceSpec) -> None:
    """Refuse sequence groups where the policy, the allocator or the reads of attention know nothing of them."""
    width, key = sequences_each(workload)
    if width == 1:
        return
    otherwise = ""
    if key == "samples":
        otherwise = f", or write samples: {width}, which makes each output a request of its own"
    scheduler, memory, at = instance.scheduler, instance.memory, ("workload", key)
    batching = batching_of(scheduler)
    if not getattr(batching.spec.plug_in, "groups", False):
        able = plug_ins_with(scheduler.kind, "groups")
        message = f"the policy {batching.name} does not schedule the outputs of a request together"
        raise refusal(message, remedy=f"use the policy {able}{otherwise}", at=at)
    admission = getattr(scheduler.parameters, "admission", None)
    if admission is not None and admission.name != "anyone":
        message = f"the admission rule {admission.name} does not count the outputs of a request"
        raise refusal(message, remedy=f"use the rule anyone{otherwise}", at=at)
    if not getattr(memory.plug_in, "forks", False):
        able = plug_ins_with(memory.kind, "forks")
        message = f"in the allocator {memory.allocator} the outputs of a request cannot share blocks"
        raise refusal(message, remedy=f"use the allocator {able}{otherwise}", at=at)
    if memory.compression.read_tokens is not None or memory.compression.scan_share:
        message = "sparse reads of several outputs are not modelled"
        raise refusal(message, remedy=f"leave read_tokens and scan_share out{otherwise}", at=at)
    if width > scheduler.max_num_seqs:
        message = f"a request has {width} sequences, but no more than {scheduler.max_num_seqs} may run"
        raise refusal(message, remedy=f"raise instance.scheduler.max_num_seqs{otherwise}", at=at)

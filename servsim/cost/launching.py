"""What launching a kernel costs inside an engine's CUDA graph, where it differs from a kernel measured alone."""

from __future__ import annotations

from servsim.hardware import Device, Efficiency

__all__ = ["as_launched"]


def as_launched(device: Device, elementwise_s: float | None, fp8_gemm_s: float | None) -> Device:
    """The device with the overheads that an engine sees; None leaves the device's own.

    Compilers fuse norms, rotary embeddings and activations, and launch the rest of a graph back to back: an
    elementwise call costs less than one launched alone. They fuse the quantization of activations into what
    comes before it too, while the fp8 GEMMs of kernel tables include a kernel of their own for that.
    """
    changed: list[Efficiency] = []
    for entry in device.efficiencies:
        if entry.operator == "elementwise" and elementwise_s is not None:
            continue
        if entry.operator == "gemm" and entry.dtype == "fp8" and fp8_gemm_s is not None:
            changed.append(entry.model_copy(update={"overhead_s": fp8_gemm_s}))
        else:
            changed.append(entry)
    if elementwise_s is not None:
        plain = device.efficiency("elementwise")
        changed.append(plain.model_copy(update={"overhead_s": elementwise_s, "dtype": "any"}))
    return device.model_copy(update={"efficiencies": tuple(changed)})

"""KV that is stored smaller, read in part, or kept elsewhere, as a scenario writes it: ``memory.compression``."""

from __future__ import annotations

from pydantic import Field, model_validator

from servsim.documents import Spec, WholeNumber, refusal

__all__ = ["CompressionSpec"]


class CompressionSpec(Spec):
    """What a method of KV compression stores and reads, and what it costs besides; shares are of the plain KV's bytes.

    Quantisation is ``stored_share`` alone; a sparse read is ``read_tokens``, and what has to be looked at to choose the
    tokens ``scan_share``; KV that stays in host memory and is copied for each step is ``fetch_share``. What a method
    does to the answers is not modelled, nor the host memory that it takes.
    """

    stored_share: float = Field(1.0, gt=0, le=1, description="Bytes stored on the device for a token.")
    read_share: float | None = Field(
        None, gt=0, le=1, description="Bytes read for a token that attention reads; by default as stored."
    )
    read_tokens: WholeNumber | None = Field(
        None, ge=1, description="Tokens of a sequence that decode attention reads at most; by default all."
    )
    scan_share: float = Field(
        0.0, ge=0, le=1, description="Bytes read for every token of the context in each decode step, to choose from."
    )
    fetch_share: float = Field(
        0.0, ge=0, le=1, description="Bytes copied from the host in a decode step for what is read, scans included."
    )
    link: str | None = Field(None, min_length=1, description="The link for fetch_share: a name in hardware, or a path.")
    overlapped: bool = Field(True, description="Whether those copies run beside the step's computation.")
    step_s: float = Field(0.0, ge=0, description="Further seconds a decode step.")
    sequence_s: float = Field(0.0, ge=0, description="Further seconds a decode step for each sequence in it.")

    @property
    def bytes_read(self) -> float:
        """Bytes read for a token that attention reads, as a share."""
        return self.stored_share if self.read_share is None else self.read_share

    @property
    def scanned(self) -> float:
        """What is scanned of every token, in tokens that are read."""
        return self.scan_share / self.bytes_read

    @model_validator(mode="after")
    def _check_link(self) -> CompressionSpec:
        if self.fetch_share and self.link is None:
            raise refusal("fetch_share needs a link", remedy="add for example link: pcie-gen4-x16", at=("link",))
        if self.link is not None and "fetch_share" not in self.model_fields_set:
            raise refusal("nothing is copied over a link", remedy="give fetch_share, or leave link out", at=("link",))
        return self

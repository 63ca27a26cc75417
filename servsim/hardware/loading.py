"""Device files, read and checked."""

from __future__ import annotations

from pathlib import Path

from servsim.documents import Document, load_document, validate
from servsim.errors import ScenarioError
from servsim.hardware.device import Device
from servsim.hardware.drive import Drive

__all__ = ["load_device", "load_drive", "load_hardware"]


def load_device(path: Path) -> Device:
    """The GPU or CPU that a YAML file describes.

    Raises ScenarioError with file, line and key for whatever is wrong in it, an SSD included.
    """
    document = _load(path)
    if document.data.get("kind") == "ssd":
        raise ScenarioError(
            "an SSD stores, it does not compute",
            place=document.place(("kind",)),
            remedy="name a device of kind gpu or cpu",
        )
    return validate(Device, document.data, document=document)


def load_drive(path: Path) -> Drive:
    """The SSD that a YAML file describes; raises ScenarioError as :func:`load_device` does."""
    document = _load(path)
    return validate(Drive, document.data, document=document)


def load_hardware(path: Path) -> Device | Drive:
    """Whatever a file of the hardware catalogue describes, told apart by its ``kind``."""
    document = _load(path)
    if document.data.get("kind") == "ssd":
        return validate(Drive, document.data, document=document)
    return validate(Device, document.data, document=document)


def _load(path: Path) -> Document:
    document = load_document(path)
    if not isinstance(document.data, dict):
        raise ScenarioError("a device file holds keys and values, found a list", place=document.place())
    return document

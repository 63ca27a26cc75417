"""Device files, read and checked."""

from __future__ import annotations

from pathlib import Path

from servsim.documents import Document, load_document, validate
from servsim.errors import ScenarioError
from servsim.hardware.device import Device
from servsim.hardware.drive import Drive
from servsim.hardware.link_spec import LinkSpec

__all__ = ["load_device", "load_drive", "load_hardware", "load_link"]

_ARE = {"ssd": "an SSD", "link": "a link", "gpu": "a GPU", "cpu": "a CPU"}
_DO = {"ssd": "stores data", "link": "carries data"}


def load_device(path: Path, place: str | None = None) -> Device:
    """The GPU or CPU that a YAML file describes.

    Raises ScenarioError with file, line and key for whatever is wrong in it. Where the file is an SSD's or a link's,
    it is the naming that is wrong: the error is placed at ``place``, where whoever asks was told to read this file.
    """
    document = _load(path)
    if (kind := document.data.get("kind")) in _DO:
        message = f"{_name(document)} is {_ARE[kind]}, which {_DO[kind]} and does not compute"
        remedy = "name a device of kind gpu or cpu"
        raise ScenarioError(message, place=place or document.place(("kind",)), remedy=remedy)
    return validate(Device, document.data, document=document)


def load_drive(path: Path, place: str | None = None) -> Drive:
    """The SSD that a YAML file describes; raises ScenarioError as :func:`load_device` does."""
    document = _load(path)
    _refuse_other(document, "ssd", "name a drive of kind ssd", place)
    return validate(Drive, document.data, document=document)


def load_link(path: Path, place: str | None = None) -> LinkSpec:
    """The link that a YAML file describes; raises ScenarioError as :func:`load_device` does."""
    document = _load(path)
    _refuse_other(document, "link", "name a link, for example pcie-gen4-x16", place)
    return validate(LinkSpec, document.data, document=document)


def load_hardware(path: Path) -> Device | Drive | LinkSpec:
    """Whatever a file of the hardware catalogue describes, told apart by its ``kind``."""
    document = _load(path)
    kind = document.data.get("kind")
    if kind == "ssd":
        return validate(Drive, document.data, document=document)
    if kind == "link":
        return validate(LinkSpec, document.data, document=document)
    return validate(Device, document.data, document=document)


def _refuse_other(document: Document, wanted: str, remedy: str, place: str | None) -> None:
    """A file of another known kind: the message says what it is, not which of its keys are unknown."""
    kind = document.data.get("kind")
    if isinstance(kind, str) and kind != wanted and kind in _ARE:
        message = f"{_name(document)} is {_ARE[kind]}, not {_ARE[wanted]}"
        raise ScenarioError(message, place=place or document.place(("kind",)), remedy=remedy)


def _name(document: Document) -> str:
    return str(document.data.get("name", document.name))


def _load(path: Path) -> Document:
    document = load_document(path)
    if not isinstance(document.data, dict):
        raise ScenarioError("a device file holds keys and values, found a list", place=document.place())
    return document

"""Model files: servsim's own YAML, or a Hugging Face config.json as it is."""

from __future__ import annotations

from pathlib import Path

from servsim.documents import load_document, validate
from servsim.errors import ScenarioError
from servsim.model.huggingface import is_config, read_config
from servsim.model.shape import ModelShape

__all__ = ["load_model"]


def load_model(path: Path) -> ModelShape:
    """The shape that a file describes; a folder is taken for one with a config.json in it.

    A file with ``model_type``, ``architectures`` or a nested ``text_config`` is read as Hugging Face's.
    Raises ScenarioError with file, line (for YAML) and key for whatever is wrong or missing.
    """
    if path.is_dir():
        path = path / "config.json"
    document = load_document(path)
    if not isinstance(document.data, dict):
        raise ScenarioError("a model file holds keys and values, found a list", place=document.place())
    if is_config(document.data):
        return read_config(document)
    return validate(ModelShape, document.data, document=document)

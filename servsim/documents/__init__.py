"""What users write, read strictly: YAML and JSON files, and errors that point at the line."""

from servsim.documents.document import Document, KeyPath, dotted
from servsim.documents.reading import dump_yaml, load_document, parse_scalar
from servsim.documents.spec import Spec, WholeNumber, refusal
from servsim.documents.wording import validate

__all__ = [
    "Document",
    "KeyPath",
    "Spec",
    "WholeNumber",
    "dotted",
    "dump_yaml",
    "load_document",
    "parse_scalar",
    "refusal",
    "validate",
]

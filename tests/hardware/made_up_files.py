"""Hardware files that a test makes up."""

from __future__ import annotations

from pathlib import Path


def written(folder: Path, text: str, *replaced: tuple[str, str]) -> Path:
    """A file with the text, in which each first string, wherever it stands, gave way to its second."""
    for old, new in replaced:
        assert old in text
        text = text.replace(old, new)
    path = folder / "made-up.yaml"
    path.write_text(text)
    return path

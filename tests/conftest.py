"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def servsim_data() -> Path:
    """The folder of real traces and measurements (docs/data.md); skips the test where it is absent."""
    folder = os.environ.get("SERVSIM_DATA")
    if not folder:
        pytest.skip("SERVSIM_DATA is not set: real data is not at hand (docs/data.md says where it comes from)")
    if not Path(folder).is_dir():
        pytest.skip(f"SERVSIM_DATA={folder} is no folder: real data is not at hand")
    return Path(folder)

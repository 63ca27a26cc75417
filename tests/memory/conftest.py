import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # whole_runs.py
sys.path.append(str(Path(__file__).parents[1] / "oracle"))
pytest.register_assert_rewrite("checks", "whole_runs")

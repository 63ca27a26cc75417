import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # by_hand.py, an engine without time
sys.path.append(str(Path(__file__).parents[1] / "oracle"))
pytest.register_assert_rewrite("assembly", "by_hand", "checks", "oracle", "oracle_admission", "oracle_memory")

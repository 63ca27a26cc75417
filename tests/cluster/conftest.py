import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "oracle"))
pytest.register_assert_rewrite("assembly", "checks", "oracle", "oracle_admission", "oracle_memory")

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "metrics"))  # made_up_run.py, a toy engine

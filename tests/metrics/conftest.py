import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # made_up_run.py, shared with tests/report

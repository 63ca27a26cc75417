"""Facts as they happened."""

from servsim.records.columns import Columns
from servsim.records.recorder import FINISHED, PAUSE_REASONS, REJECTED, STATUSES, UNFINISHED, Recorder, Records

__all__ = ["FINISHED", "PAUSE_REASONS", "REJECTED", "STATUSES", "UNFINISHED", "Columns", "Recorder", "Records"]

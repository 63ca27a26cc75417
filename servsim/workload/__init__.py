"""The request stream: arrivals, lengths, classes of clients, and readers of other tools' traces."""

from servsim.workload.blocks import RequestBlock, RequestStream
from servsim.workload.closed_loop import ClosedLoop
from servsim.workload.stream import open_stream
from servsim.workload.trace import Labels, TraceTable

__all__ = ["ClosedLoop", "Labels", "RequestBlock", "RequestStream", "TraceTable", "open_stream"]

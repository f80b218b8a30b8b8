"""Segment in a process of its own and print the most memory it ever held: ``python measured.py job.yaml [bytes]``.

The second argument is what the region graph may take.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob

if __name__ == "__main__":
    segment(SegmentJob.load(sys.argv[1]), graph_bytes=int(sys.argv[2]) if len(sys.argv) > 2 else None)
    # Not ru_maxrss, which begins with what the parent held.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    print(int(peak.group(1)) * 1024)

"""Whether the system has killed processes for lack of memory. This distinguishes an out-of-memory kill from any other SIGKILL.

Linux counts such kills in /proc/vmstat, including those for a container's own limit. The count does not say which processes
were killed. But if it has moved, and a worker died by a SIGKILL that we did not send, lack of memory is the likely cause. On
other systems, and in sandboxes that hide the count, we claim nothing.
"""

from __future__ import annotations

from pathlib import Path

_COUNTERS = Path("/proc/vmstat")
_UNKNOWN = -1


class MemoryWatch:
    """Remembers the count of out-of-memory kills from one look to the next."""

    def __init__(self, counters: Path = _COUNTERS) -> None:
        self._counters = counters
        self._seen = self._kills()

    def ran_out(self) -> bool:
        """Whether there have been such kills since the last call, or since the beginning."""
        seen, self._seen = self._seen, self._kills()
        return self._seen > seen >= 0

    def _kills(self) -> int:
        try:
            lines = self._counters.read_text("ascii").splitlines()
        except OSError:  # hidden, or this program has as many files open as it may
            return _UNKNOWN
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

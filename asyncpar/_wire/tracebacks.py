"""What needs the standard module `traceback`, which takes longer to import than a worker in an interpreter to start.

Imported by `import_own` when a call has failed. Zygotes import it for all their workers.
"""

from __future__ import annotations

import traceback
from types import TracebackType

_MOST_FRAMES = 1000  # shown in a traceback: an exception that is raised again and again collects more and more


def format_traceback(error: BaseException, frames: TracebackType | None) -> str:
    """The text that Python would print, with these frames."""
    return "".join(traceback.format_exception(type(error), error, frames, limit=_MOST_FRAMES))


def clear_frames(error: BaseException) -> None:
    """Drops the local variables of the frames that raised the error."""
    traceback.clear_frames(error.__traceback__)

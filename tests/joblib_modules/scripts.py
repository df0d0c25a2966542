"""Programs that are run by themselves, since `install` changes what `import joblib` means for the rest of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent


def run(script: str, *folders: Path) -> str:
    """What the script prints. It finds modules in `folders` first, and may not print a warning."""
    path = os.pathsep.join([*map(str, folders), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-c", dedent(script)]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50)
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr
    return answer.stdout

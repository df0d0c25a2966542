"""What it was measured on, and with which versions: the lines above the table and below the plot."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from asyncpar import __version__

_PACKAGES = (
    "anyio",
    "cloudpickle",
    "joblib",
    "loky",
    "mpire",
    "numpy",
    "pandas",
    "scikit-learn",
    "starlette",
    "trio",
    "uvicorn",
    "uvloop",
)


def describe() -> list[str]:
    """A few lines."""
    gil = "" if getattr(sys, "_is_gil_enabled", lambda: True)() else ", free-threaded"
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return [
        f"{_usable_cpus()} of {os.cpu_count()} processors{load}",
        f"{platform.system()} {platform.release()}, {platform.machine()}",
        f"{platform.python_implementation()} {platform.python_version()}{gil}",
        ", ".join([f"asyncpar {__version__}", *filter(None, map(_installed, _PACKAGES))]),
    ]


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _installed(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None

"""The helper processes of multiprocessing and loky, which otherwise stay until the program ends."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from typing import Any

FORKSERVER = multiprocessing.get_context("forkserver")


@contextmanager
def helper_processes() -> Iterator[None]:
    """They run meanwhile, so that a test that uses them leaves none behind; later tests count their own children."""
    FORKSERVER.set_forkserver_preload(["concurrent.futures.process", "asyncpar._child.pool_main", "asyncpar.testing.functions"])
    resource_tracker.ensure_running()
    forkserver.ensure_running()
    trackers: list[Any] = [resource_tracker]
    with suppress(ImportError):
        trackers.append(importlib.import_module("loky.backend.resource_tracker"))
        trackers[-1].ensure_running()
    yield
    FORKSERVER.set_forkserver_preload(["__main__"])
    server: Any = forkserver
    server._forkserver._stop()
    for tracker in trackers:
        tracker._resource_tracker._stop()

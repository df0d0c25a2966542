"""Whether a web service stays responsive while its workers compute: p95 of `GET /ping`, idle and during a heavy map.

`examples/service.py` is served by uvicorn in a process of its own and asked over real HTTP, one request after another on one
connection, with a pause between two as a load balancer's health check has. During the heavy map every processor computes, so
what is measured is the event loop and the operating system's scheduler together.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import quantiles

from tests.benchmarks.frame import Case, Contender, Target, missing, scaled

_ROOT = Path(__file__).resolve().parents[3]
_EXAMPLE = Path("examples", "service.py")
_HEAVY = "/primes?upto=10000000000"  # a minute of work on every processor; asked for again should it end
_PINGS = 500
_PAUSE_SECONDS = 2e-3
_START_SECONDS = 20.0
_REQUEST_SECONDS = 60.0


def _ping_p95(busy: bool, quick: bool) -> float:
    with _service() as port, _heavy_maps(port) if busy else nullcontext():
        return _measure_pings(port, busy, quick)


def _measure_pings(port: int, busy: bool, quick: bool) -> float:
    samples = []
    with closing(_connect(port)) as connection:
        for _ in range(scaled(_PINGS, quick)):
            time.sleep(_PAUSE_SECONDS)
            began = time.perf_counter()
            _get(connection, "/ping")
            samples.append(time.perf_counter() - began)
        running = json.loads(_get(connection, "/status"))["maps"]["running"]
    assert running == busy, "a heavy map must be running all the time, or none at all"
    return quantiles(samples, n=20)[-1]


@contextmanager
def _service() -> Iterator[int]:
    """The port of a running service."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "examples.service:app", f"--port={port}", "--log-level=warning"]
    process = subprocess.Popen(command, cwd=_ROOT)
    try:
        _wait_until_up(port)
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _heavy_maps(port: int) -> Iterator[None]:
    """One heavy request after another, until the block ends; the last one is left unanswered."""
    connection = _connect(port)
    stop = threading.Event()
    failures: list[Exception] = []

    def ask() -> None:
        try:
            while not stop.is_set():
                _get(connection, _HEAVY)
        except Exception as error:
            if not stop.is_set():
                failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        time.sleep(0.5)  # until all workers compute
        yield
    finally:
        stop.set()
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        connection.close()
    if failures:
        raise failures[0]


def _wait_until_up(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with closing(_connect(port)) as connection:
                _get(connection, "/ping")
                return
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    response = connection.getresponse()
    content = response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"GET {path} was answered with status {response.status}")
    return content


def _unavailable() -> str | None:
    if not (_ROOT / _EXAMPLE).exists():
        return f"{_EXAMPLE} is not there"
    return missing("starlette", "uvicorn")


CASES = (
    Case(
        "service-p95",
        "p95 of GET /ping, idle and during a heavy map",
        (
            Contender("idle", partial(_ping_p95, False), "yardstick"),
            Contender("during a map", partial(_ping_p95, True), "asyncpar", (Target(times=1.0, plus=20e-3),)),
        ),
        reference="idle",
        unavailable=_unavailable,
    ),
)

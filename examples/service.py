"""A web service that computes in processes: its event loop stays free, and a client that leaves stops its own work.

    pip install asyncpar starlette uvicorn
    python examples/service.py --port 8000
    curl 'http://127.0.0.1:8000/primes?upto=1000000000'    # counts primes on every processor
    curl 'http://127.0.0.1:8000/ping'                      # answers at once, even meanwhile
    curl 'http://127.0.0.1:8000/status'                    # how many maps are running

What it shows about asyncpar:

- The application owns one `ProcessExecutor` from start to end, and all requests share its workers fairly.
- A handler awaits its map like anything else, and cancelling it stops the work in the processes, too. When a client hangs up
  (Ctrl-C the first curl), the workers are free again before the handler has returned.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asyncpar import Executor, ProcessExecutor, pmap

CHUNK = 1 << 20  # numbers in one call: some milliseconds of work
LARGEST = 10**10  # a minute or more of work, which is enough for anybody


# The work


def count_primes(start: int, stop: int) -> int:
    """How many primes there are from `start` up to, but not including, `stop`. This is one call of a map."""
    start = max(start, 2)
    if start >= stop:
        return 0
    is_prime = bytearray(b"\x01") * (stop - start)
    for divisor in primes_up_to(math.isqrt(stop - 1)):
        first = max(divisor * divisor, -(-start // divisor) * divisor)
        strike_out(is_prime, first - start, divisor)
    return is_prime.count(1)


def primes_up_to(limit: int) -> list[int]:
    """Uses the sieve of Eratosthenes."""
    is_prime = bytearray(b"\x01") * (limit + 1)
    is_prime[:2] = bytes(min(2, limit + 1))
    for number in range(2, math.isqrt(limit) + 1):
        if is_prime[number]:
            strike_out(is_prime, number * number, number)
    return [number for number in range(limit + 1) if is_prime[number]]


def strike_out(is_prime: bytearray, first: int, step: int) -> None:
    is_prime[first::step] = bytes(len(range(first, len(is_prime), step)))


# The service


@dataclass
class Maps:
    """Counts the maps of all requests."""

    running: int = 0
    finished: int = 0
    stopped: int = 0  # by a client that left, an error, or the service's end

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.running += 1
        try:
            yield
        except BaseException:
            self.stopped += 1
            raise
        else:
            self.finished += 1
        finally:
            self.running -= 1


@dataclass
class Service:
    """What the handlers share for as long as the application lives."""

    executor: Executor
    maps: Maps = field(default_factory=Maps)

    async def count_primes_up_to(self, upto: int) -> int:
        """One map: the numbers up to and including `upto`, cut into chunks, on all workers."""
        stop = upto + 1
        starts = range(0, stop, CHUNK)
        stops = (min(start + CHUNK, stop) for start in starts)
        with self.maps.one_more():
            return sum(await pmap(count_primes, starts, stops, executor=self.executor, ordered=False))


async def primes(request: Request) -> Response:
    """GET /primes?upto=N"""
    try:
        upto = parse_upto(request.query_params.get("upto"))
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=400)
    service: Service = request.state.service
    count: int | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_on_disconnect, request, group.cancel_scope)
        count = await service.count_primes_up_to(upto)
        group.cancel_scope.cancel()  # there is nothing to watch for any more
    if count is None:
        return Response(status_code=499)  # nobody will read it
    return JSONResponse({"upto": upto, "primes": count})


async def cancel_on_disconnect(request: Request, scope: anyio.CancelScope) -> None:
    """Waits, without polling, until the client has hung up, and then cancels the scope."""
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the request's body, which does not matter
    scope.cancel()


async def ping(request: Request) -> Response:
    """GET /ping"""
    return JSONResponse({"pong": True})


async def status(request: Request) -> Response:
    """GET /status"""
    service: Service = request.state.service
    return JSONResponse({"workers": service.executor.workers, "maps": asdict(service.maps)})


def parse_upto(text: str | None) -> int:
    """The number in the query.

    Raises:
        ValueError: there is none, or it is out of range; the message is for the client.
    """
    if not text:
        raise ValueError("upto is missing; ask for /primes?upto=1000, say")
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"upto must be a whole number from 0 to {LARGEST}, not {text[:40]!r}")
    if len(text) > len(str(LARGEST)) or int(text) > LARGEST:
        raise ValueError(f"upto must not be greater than {LARGEST}")
    return int(text)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """The executor lives as long as the application. Handlers find what is yielded here in `request.state`."""
    async with ProcessExecutor() as executor:
        yield {"service": Service(executor)}


app = Starlette(
    routes=[Route("/primes", primes), Route("/ping", ping), Route("/status", status)],
    lifespan=lifespan,
)


def main(arguments: Sequence[str] | None = None) -> None:
    import uvicorn

    parser = argparse.ArgumentParser(description="Counts primes over HTTP.")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1; 0: any free one (default: 8000)")
    options = parser.parse_args(arguments)
    uvicorn.run(app, host="127.0.0.1", port=options.port, timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()

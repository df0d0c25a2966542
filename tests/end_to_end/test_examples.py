"""The examples, used as their readers would use them: the census as a script, the service over real HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.interpreters import with_interpreters

EXAMPLES = Path(__file__).parents[2] / "examples"
CENSUS = EXAMPLES / "stdlib_census.py"
SERVICE = EXAMPLES / "service.py"
PATIENCE = 40  # seconds that anything may take before a test gives up; it decides nothing else

SHAPES = '''"""A doc."""


class Shape:
    class Inner:
        pass

    def area(self, a, b):
        if a and b or self:
            return a
        return [x for x in a if x] if b else "\\d"


def plain():
    pass
'''
LOOPS = """async def walk(things):
    async for thing in things:
        while thing:
            try:
                thing = thing.next
            except (OSError, ValueError):
                def retry(n):
                    for i in range(n):
                        pass
            except KeyError:
                pass
    match things:
        case []:
            return 0
        case _:
            return 1
"""
BROKEN = """def good():
    pass

def bad(:
"""


# The census


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three files that parse and one that does not, and what the census must not look at."""
    root = tmp_path / "tree"
    for name, text in {
        "shapes.py": SHAPES,
        "package/loops.py": LOOPS,
        "package/empty.py": "",
        "broken.py": BROKEN,
        "notes.txt": "def not_python(): pass",
        "site-packages/other.py": "def other(): pass",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "dangling.py").symlink_to(root / "nowhere.py")
    return root


def run_census(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CENSUS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=_environment(), check=False)


@pytest.mark.parametrize("executor", ["process", "thread", with_interpreters("interpreter"), "inline"])
def test_the_census_measures_every_function_and_names_the_broken_file(tree: Path, executor: str) -> None:
    done = run_census("--root", tree, "--executor", executor, "--jobs", 2)

    assert (done.returncode, done.stderr) == (0, "")
    longest, most_branching, rest = done.stdout.split("\n\n", 2)
    assert longest.splitlines()[1:] == [
        "     16  walk  package/loops.py:1",
        "      4  Shape.area  shapes.py:8",
        "      3  walk.retry  package/loops.py:7",
        "      2  plain  shapes.py:14",
    ]
    assert most_branching.splitlines()[1:] == [
        "      6  walk  package/loops.py:1",  # async for, while, two excepts, two cases
        "      6  Shape.area  shapes.py:8",  # if, and, or, for and if of the comprehension, conditional expression
        "      1  walk.retry  package/loops.py:7",
        "      0  plain  shapes.py:14",
    ]
    assert rest.startswith("4 files, 31 lines, 4 functions, 2 classes\n1 did not parse\n  broken.py: line 4: ")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(b"# coding: martian\n", "martian", id="unknown encoding"),
        pytest.param(b"x = '\xff'\n", "broken.py: ", id="wrong encoding"),
        pytest.param(b"x = 1\0\n", "null bytes", id="null bytes"),
        pytest.param(b"(" * 5000, "broken.py: ", id="nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_parsed_does_not_stop_the_census(tree: Path, content: bytes, problem: str) -> None:
    (tree / "broken.py").write_bytes(content)

    done = run_census("--root", tree, "--jobs", 2)

    assert (done.returncode, done.stderr) == (0, "")
    assert "4 files, 31 lines, 4 functions, 2 classes\n1 did not parse\n" in done.stdout
    assert problem in done.stdout.partition("did not parse\n")[2]


def test_the_census_says_how_much_faster_several_workers_were_and_how_that_was_measured(tree: Path) -> None:
    done = run_census("--root", tree, "--jobs", 2)

    assert re.search(
        r"^\d+\.\d\d s with 2 workers \(process\), \d+\.\d\d s with one of them: \d+\.\d\d times as fast$", done.stdout, re.M
    )
    assert "untimed" in done.stdout


def test_with_one_worker_there_is_nothing_to_compare(tree: Path) -> None:
    done = run_census("--root", tree, "--jobs", 1)

    assert re.search(r"^\d+\.\d\d s with one worker \(process\)$", done.stdout, re.M)
    assert "times as fast" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs must be 1 or more, not 0"),
        (["--jobs", "-2"], "--jobs must be 1 or more, not -2"),
        (["--jobs", "many"], "invalid int value: 'many'"),
        (["--executor", "clouds"], "invalid choice: 'clouds'"),
        (["--root", "no/such/directory"], "--root no/such/directory is not a directory"),
    ],
)
def test_the_census_refuses_bad_arguments_in_one_line(arguments: list[str], message: str) -> None:
    done = run_census(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_census_refuses_a_tree_without_python(tmp_path: Path) -> None:
    done = run_census("--root", tmp_path)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"stdlib_census.py: there is no .py file under --root {tmp_path}\n"


# The service


class Server:
    """The service in a thread of its own, on a port of its own, watched from outside its application."""

    def __init__(self) -> None:
        import uvicorn

        self._module: Any = import_module("examples.service")  # by name, as `uvicorn examples.service:app` does
        self._listener = socket.create_server(("127.0.0.1", 0))  # from now on clients may connect; they are served once it runs
        self.port: int = self._listener.getsockname()[1]
        self.watching = threading.Event()  # a map's handler awaits what its client does: the map has begun
        self.handled = threading.Event()  # that handler has ended, and its map with it
        config = uvicorn.Config(
            self._watched, interface="asgi3", log_config=None, ws="none", lifespan="on", timeout_graceful_shutdown=PATIENCE
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="service")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        with self._listener:  # closed if the service fails to start, too, so that no client waits for it
            self._server.run([self._listener])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def get(self, target: str) -> tuple[int, Any]:
        """Status and JSON, over a connection of its own."""
        with closing(self.connect()) as connection:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def maps(self) -> dict[str, int]:
        numbers: dict[str, int] = self.get("/status")[1]["maps"]
        return numbers

    @contextmanager
    def heavy_map(self) -> Iterator[None]:
        """Asks for more than the test has time for; hangs up at the end of the block, and waits until the handler has ended."""
        self.watching.clear()
        self.handled.clear()
        with closing(self.connect()) as client:
            client.request("GET", f"/primes?upto={self._module.LARGEST}")
            assert self.watching.wait(PATIENCE)
            yield
        assert self.handled.wait(PATIENCE)

    async def _watched(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope.get("path") != "/primes":
            await self._module.app(scope, receive, send)
            return

        async def receive_watched() -> Any:
            self.watching.set()
            return await receive()

        try:
            await self._module.app(scope, receive_watched, send)
        finally:
            self.handled.set()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("upto", "primes"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (100, 25), (1 << 20, 82025), (5_000_000, 348513)]
)
def test_the_service_counts_primes(server: Server, upto: int, primes: int) -> None:
    assert server.get(f"/primes?upto={upto}") == (200, {"upto": upto, "primes": primes})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "upto is missing"),
        ("?upto=", "upto is missing"),
        ("?upto=many", "not 'many'"),
        ("?upto=-5", "not '-5'"),
        ("?upto=1.5", "not '1.5'"),
        ("?upto=%D9%A3", "whole number"),
        ("?upto=10000000001", "must not be greater than 10000000000"),
        ("?upto=" + "9" * 5000, "must not be greater than 10000000000"),
    ],
)
def test_the_service_answers_400_to_a_bad_query(server: Server, query: str, message: str) -> None:
    status, answer = server.get(f"/primes{query}")

    assert status == 400
    assert message in answer["error"]
    assert server.maps() == {"running": 0, "finished": 0, "stopped": 0}


def test_ping_answers_while_a_heavy_map_is_running(server: Server) -> None:
    with server.heavy_map():
        assert server.maps()["running"] == 1
        assert server.get("/ping") == (200, {"pong": True})
        assert server.maps() == {"running": 1, "finished": 0, "stopped": 0}


def test_a_client_that_disconnects_stops_its_map(server: Server) -> None:
    with server.heavy_map():
        assert server.maps() == {"running": 1, "finished": 0, "stopped": 0}

    assert server.maps() == {"running": 0, "finished": 0, "stopped": 1}
    assert server.get("/primes?upto=5000000") == (200, {"upto": 5_000_000, "primes": 348513})  # the workers are free
    assert server.maps() == {"running": 0, "finished": 1, "stopped": 1}


def test_a_client_that_disconnects_does_not_stop_the_map_of_another(server: Server) -> None:
    with closing(server.connect()) as stays:
        with server.heavy_map():
            stays.request("GET", "/primes?upto=50000000")
        response = stays.getresponse()

        assert (response.status, json.loads(response.read())) == (200, {"upto": 50_000_000, "primes": 3001134})


def test_a_small_map_gets_its_share_beside_a_heavy_one(server: Server) -> None:
    with server.heavy_map():
        assert server.get("/primes?upto=100") == (200, {"upto": 100, "primes": 25})
        assert server.maps() == {"running": 1, "finished": 1, "stopped": 0}


def test_the_service_runs_as_a_script_and_ends_at_control_c() -> None:
    command = [sys.executable, str(SERVICE), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=_environment()) as process:
        assert process.stderr is not None
        try:
            port = next(int(found[1]) for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
                connection.request("GET", "/primes?upto=1000")
                assert json.loads(connection.getresponse().read()) == {"upto": 1000, "primes": 168}
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=PATIENCE)
        except BaseException:
            process.kill()
            raise
        assert process.returncode == 0
        assert "Traceback" not in log


def _environment() -> dict[str, str]:
    """This process's, with asyncpar where a script outside the repository finds it too."""
    paths = [str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "default"}


def test_the_grid_search_fits_each_transformer_once(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    twice = "import runpy, sys; del sys.argv[0]; [runpy.run_path(sys.argv[0], run_name='__main__') for _ in range(2)]"
    command = [sys.executable, "-c", twice, str(EXAMPLES / "cached_grid_search.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("fitted 6 times for 18 models")
    assert second.startswith("fitted 6 times for 18 models")  # all in all: it finds what the first has kept

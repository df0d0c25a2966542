"""The project's chores: `nox` runs all checks, `nox -s tests-3.14` one of them, `nox -s bench` the benchmarks."""

from __future__ import annotations

import shutil

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
NEWEST = "3.14"
OLDEST = "3.11"
PARALLEL = ["--numprocesses=4", "--dist=worksteal"]  # most tests wait for processes; `nox -s tests-3.14 -- -n 0` for a debugger

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "oldest", "doctests", "docs"]


def install(session: nox.Session, *extras: str, is_run: bool = True) -> None:
    """Installs the project with `extras`. What is run, and not only read, is compiled: imports cost what they cost a user."""
    compiled = ["--compile-bytecode"] if is_run and session.venv_backend == "uv" else []
    session.install(*compiled, f".[{','.join(extras)}]" if extras else ".")


@nox.session(python=NEWEST)
def lint(session: nox.Session) -> None:
    """Style, with ruff."""
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=NEWEST)
def types(session: nox.Session) -> None:
    """mypy --strict and pyright, on the package and on what users write (`tests/typing`)."""
    install(session, "lint", "test", "bench", is_run=False)
    session.install("nox")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=[python for python in PYTHONS if shutil.which(f"python{python}")])
def tests(session: nox.Session) -> None:
    """All tests, on asyncio, uvloop and trio; between the oldest and the newest Python and after it, on asyncio only."""
    install(session, "test")
    narrow = [] if session.python in (OLDEST, NEWEST) else ["-k", "not uvloop and not trio", "--ignore=tests/simulation"]
    session.run("python", "-m", "pytest", *PARALLEL, *narrow, *session.posargs)


@nox.session(python=OLDEST)
def oldest(session: nox.Session) -> None:
    """Pickling and tracebacks with the oldest dependencies that pyproject.toml allows; the newest are what `tests` installs."""
    requirements: list[str] = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    session.install(".[test]", *(requirement.replace(">=", "==") for requirement in requirements))
    tests = session.posargs or [
        "tests/unit/test_code_objects.py",
        "tests/properties/test_wire.py",
        "tests/end_to_end/test_tracebacks.py",
    ]
    session.run("python", "-m", "pytest", *PARALLEL, *tests)


@nox.session(python=NEWEST)
def coverage(session: nox.Session) -> None:
    """The branches of the package that no test reaches, in workers or elsewhere. Whether the tests pass is not its affair."""
    install(session, "test")
    session.run("coverage", "erase")
    heavy = "tests/end_to_end/test_scripts.py::test_a_worker_that_computes_a_square_root_stays_light"  # not with coverage in it
    pytest = ["-m", "pytest", "--numprocesses=2", "--dist=worksteal", "--timeout=300", f"--deselect={heavy}", *session.posargs]
    session.run("coverage", "run", *pytest, success_codes=[0, 1])
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=NEWEST)
def doctests(session: nox.Session) -> None:
    """The examples in public docstrings."""
    install(session, "test")
    acts = "--ignore=asyncpar/joblib/installed.py"  # importing it puts asyncpar in joblib's place
    session.run("python", "-m", "pytest", "--doctest-modules", acts, "asyncpar")


@nox.session(python=NEWEST)
def docs(session: nox.Session) -> None:
    """The documentation; warnings are errors."""
    install(session, "docs", "testing")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build")


@nox.session(python=NEWEST)
def bench(session: nox.Session) -> None:
    """Benchmarks beside the peers: one Markdown table and, if all of them are run, the plot in the documentation."""
    install(session, "bench", "test")
    session.run("python", "-m", "tests.benchmarks", *(session.posargs or ["--plot", "docs/benchmarks.svg"]))


@nox.session(python=NEWEST)
def simulation(session: nox.Session) -> None:
    """The scheduler and the control law over simulated workers: two Markdown tables."""
    install(session, "test")
    session.run("python", "-m", "tests.simulation")


@nox.session(python=NEWEST)
def soak(session: nox.Session) -> None:
    """Ten minutes of chaos, and many runs in a row: nothing may be lost or left."""
    install(session, "test")
    session.run("python", "-m", "tests.faults.soak", *(session.posargs or ["--counts"]))


@nox.session(python=NEWEST)
def dask(session: nox.Session) -> None:
    """`DaskExecutor`, on clusters of this machine."""
    install(session, "dask", "test")
    tests = session.posargs or ["tests/dask", "tests/end_to_end/test_docs.py", "-k", "dask or clusters"]
    session.run("python", "-m", "pytest", "--numprocesses=2", "--dist=worksteal", *tests)


@nox.session(python=NEWEST)
def ray(session: nox.Session) -> None:
    """`RayExecutor`, on clusters of this machine. Takes minutes: most tests start workers of Ray, and some of them a Ray."""
    install(session, "ray", "test")
    session.run("python", "-m", "pytest", *(session.posargs or ["tests/ray"]))


@nox.session(python=NEWEST)
def mpi(session: nox.Session) -> None:
    """A map over the ranks of an MPI program, through `FuturesExecutor`."""
    install(session)
    session.install("mpi4py", "mpich")  # which brings mpiexec
    session.run("mpiexec", "-n", "3", "python", "-m", "mpi4py.futures", "tests/mpi/map_over_ranks.py")

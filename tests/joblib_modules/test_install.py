"""`install`: `import joblib` gives asyncpar, in the program and in its workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.joblib_modules.scripts import run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a package that is named joblib, as if it were installed, and a library that uses it."""
    (tmp_path / "joblib").mkdir()
    (tmp_path / "joblib" / "__init__.py").write_text("Parallel = 'theirs'\n")
    (tmp_path / "joblib" / "parallel.py").write_text("Parallel = 'theirs'\n")
    (tmp_path / "library.py").write_text(
        "import joblib\nfrom joblib.parallel import Parallel, delayed\n"
        "def whose(_):\n    return joblib.__name__, Parallel.__module__\n"
        "def below(x):\n    return Parallel(n_jobs=2, backend='loky')(delayed(whose)(y) for y in range(2))\n"
    )
    return tmp_path


def test_joblib_and_its_modules_are_those_of_asyncpar(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib
        asyncpar.joblib.install()
        asyncpar.joblib.install()
        import joblib, joblib.parallel, joblib.externals.loky.process_executor
        from joblib import Parallel, delayed, hashing
        from joblib.externals import cloudpickle
        from joblib.externals.cloudpickle.cloudpickle import dumps
        assert joblib is asyncpar.joblib
        assert joblib.parallel.Parallel is Parallel is asyncpar.joblib.parallel.Parallel
        assert issubclass(Parallel, asyncpar.Parallel)
        assert dumps is cloudpickle.cloudpickle.dumps
        assert "installed" not in dir(joblib.memory)
        print(joblib.memory.Memory is asyncpar.Memory, joblib.__version__ > "1.5")
        """,
        folder,
    )
    assert printed == "True True\n"


def test_workers_have_it_too_and_so_have_those_below_and_those_that_preload(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib
        asyncpar.joblib.install()
        import joblib, library
        print({*joblib.Parallel(n_jobs=2)(joblib.delayed(library.whose)(x) for x in range(4))})
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(library.below)(x) for x in range(2))[0][0])
        with joblib.Parallel(n_jobs=2, preload=["library"]) as parallel:
            print({*parallel(joblib.delayed(lambda: library.whose(0))() for x in range(4))})
        """,
        folder,
    )
    ours = ("asyncpar.joblib", "asyncpar.joblib.parallel")
    assert printed == f"{{{ours}}}\n{ours}\n{{{ours}}}\n"


def test_warm_workers_are_replaced_when_it_begins_and_when_it_ends(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib, sys
        def whose(_):
            import joblib
            return joblib.__name__
        def ask():
            print({*asyncpar.Parallel(n_jobs=2)(asyncpar.delayed(whose)(x) for x in range(4))})
        ask()
        asyncpar.joblib.install()
        ask()
        asyncpar.joblib.uninstall()
        ask()
        asyncpar.joblib.uninstall()
        import joblib.parallel
        print(joblib.Parallel, joblib.parallel.Parallel)
        """,
        folder,
    )
    assert printed == "{'joblib'}\n{'asyncpar.joblib'}\n{'joblib'}\ntheirs theirs\n"


def test_it_is_refused_where_joblib_has_been_imported_already(folder: Path) -> None:
    printed = run(
        """
        import joblib, asyncpar.joblib
        try:
            asyncpar.joblib.install()
        except RuntimeError as error:
            print(error)
        print(joblib.Parallel)
        """,
        folder,
    )
    assert printed.startswith("joblib has been imported already")
    assert printed.endswith("theirs\n")


def test_what_joblib_does_not_have_is_not_there_either(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib
        asyncpar.joblib.install()
        try:
            import joblib.nothing
        except ModuleNotFoundError as error:
            print(error)
        try:
            from joblib import nothing
        except ImportError as error:
            print("no nothing")
        """,
        folder,
    )
    assert printed == "No module named 'joblib.nothing'\nno nothing\n"


def test_what_asyncpar_has_for_itself_is_not_there_either(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib, importlib
        asyncpar.joblib.install()
        for name in ["backend", "errors", "installed", "jobs", "standing_in", "tasks"]:
            try:
                importlib.import_module(f"joblib.{name}")
            except ModuleNotFoundError as error:
                print(error.name)
        """,
        folder,
    )
    assert printed.split() == [f"joblib.{name}" for name in ["backend", "errors", "installed", "jobs", "standing_in", "tasks"]]


def test_it_is_still_there_when_something_has_removed_modules(folder: Path) -> None:
    printed = run(
        """
        import asyncpar.joblib, sys
        asyncpar.joblib.install()
        import joblib.parallel
        for name in [name for name in sys.modules if name.partition(".")[0] == "joblib"]:
            del sys.modules[name]
        asyncpar.joblib.install()
        import joblib.parallel
        print(joblib is asyncpar.joblib, joblib.parallel is asyncpar.joblib.parallel)
        asyncpar.joblib.uninstall()
        import joblib.parallel
        print(joblib.parallel.Parallel)
        """,
        folder,
    )
    assert printed == "True True\ntheirs\n"


def test_the_backend_asyncpar_is_known_without_joblib() -> None:
    printed = run(
        """
        import asyncpar.joblib, os
        asyncpar.joblib.install()
        asyncpar.joblib.register()
        import joblib
        with joblib.parallel_config(backend="asyncpar", n_jobs=2):
            print(os.getpid() in joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4)))
        """
    )
    assert printed == "False\n"

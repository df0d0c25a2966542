"""What joblib's smaller modules have, under asyncpar."""

from __future__ import annotations

import bz2
import importlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

import asyncpar
import asyncpar.joblib
from asyncpar._cache import compression
from asyncpar.joblib import disk, func_inspect, logger, memory
from asyncpar.joblib.compressor import CompressorWrapper, register_compressor
from asyncpar.joblib.externals import loky
from asyncpar.joblib.externals.loky.process_executor import TerminatedWorkerError
from asyncpar.joblib.pool import has_shareable_memory
from tests.functions import double, kill_self, process_id

NAMES = {
    "": "Logger MemorizedResult Memory Parallel ParallelBackendBase PrintTime StoreBackendBase cpu_count delayed dump "
    "effective_n_jobs expires_after hash load parallel_backend parallel_config register_compressor register_parallel_backend "
    "register_store_backend wrap_non_picklable_objects __version__",
    "parallel": "AutoBatchingMixin BACKENDS BatchCompletionCallBack BatchedCalls DEFAULT_BACKEND DEFAULT_PROCESS_BACKEND "
    "DEFAULT_THREAD_BACKEND FallbackToBackend Logger LokyBackend MAYBE_AVAILABLE_BACKENDS MultiprocessingBackend Parallel "
    "ParallelBackendBase SequentialBackend ThreadingBackend TimeoutError VALID_BACKEND_CONSTRAINTS VALID_BACKEND_HINTS "
    "cpu_count delayed effective_n_jobs get_active_backend mp parallel_backend parallel_config register_parallel_backend "
    "short_format_time",
    "_parallel_backends": "AutoBatchingMixin LokyBackend MultiprocessingBackend ParallelBackendBase PoolManagerMixin "
    "SequentialBackend ThreadingBackend",
    "_store_backends": "CacheWarning FileSystemStoreBackend StoreBackendBase StoreBackendMixin",
    "_multiprocessing_helpers": "mp",
    "_memmapping_reducer": "has_shareable_memory",
    "compressor": "CompressorWrapper register_compressor",
    "disk": "delete_folder disk_used memstr_to_bytes mkdirp rm_subdirs",
    "externals": "cloudpickle",
    "externals.loky": "Future ProcessPoolExecutor as_completed cpu_count get_reusable_executor set_loky_pickler wait "
    "wrap_non_picklable_objects",
    "externals.loky.backend.context": "cpu_count get_context set_start_method",
    "externals.loky.process_executor": "BrokenProcessPool ProcessPoolExecutor TerminatedWorkerError",
    "externals.loky.reusable_executor": "get_reusable_executor",
    "func_inspect": "filter_args format_call format_signature get_func_code get_func_name",
    "hashing": "hash",
    "logger": "Logger PrintTime format_time pformat short_format_time",
    "memory": "AsyncMemorizedFunc MemorizedFunc MemorizedResult Memory expires_after register_store_backend",
    "numpy_pickle": "dump load",
    "pool": "MemmappingPool PicklingPool has_shareable_memory",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_of_joblib_are_there(module: str) -> None:
    found = importlib.import_module(f"asyncpar.joblib.{module}".rstrip("."))
    assert [name for name in NAMES[module].split() if not hasattr(found, name)] == []


def test_what_asyncpar_has_is_there_under_another_name_and_not_once_more() -> None:
    for name in ["Memory", "MemorizedResult", "delayed", "dump", "load", "hash", "cpu_count", "register_parallel_backend"]:
        assert getattr(asyncpar.joblib, name) is getattr(asyncpar, name)
    assert memory.MemorizedFunc is type(asyncpar.Memory().cache(double))
    assert {*asyncpar.joblib.__all__} <= {*dir(asyncpar.joblib)}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        asyncpar.joblib.nothing  # noqa: B018 - it is looked up


# logger


def test_durations_are_shown_as_joblib_shows_them() -> None:
    assert (logger.short_format_time(1.26), logger.short_format_time(90)) == ("   1.3s", " 1.5min")
    assert logger.format_time(90) == "90.0s, 1.5min"


def test_a_logger_begins_its_messages_with_itself(caplog: pytest.LogCaptureFixture) -> None:
    class Model(logger.Logger):
        def __repr__(self) -> str:
            return "Model()"

    model = Model(name="models")
    with caplog.at_level(logging.DEBUG):
        model.warn("slow")
        model.info("fitted")
        model.debug("3 steps")
    assert [record.getMessage() for record in caplog.records] == ["[Model()]: slow", "[Model()]: fitted", "[Model()]: 3 steps"]
    assert {record.name for record in caplog.records} == {"models"}
    assert model.format({"a": [[[[[1]]]]]}) == "{'a': [[[...]]]}"


def test_messages_with_times_are_printed_and_written_and_older_files_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ["first", "second", "third"]:
        print_time = logger.PrintTime(logdir=str(tmp_path / "logs"))
        print_time(text)
        print_time("all", total=True)
    assert capsys.readouterr().err == "".join(
        f"{text}: 0.0s, 0.0min\nall: 0.0s, 0.0min\n" for text in ["first", "second", "third"]
    )
    for name, text in [("joblib.log", "third"), ("joblib.log.1", "second"), ("joblib.log.2", "first")]:
        assert f"{text}: 0.0s" in (tmp_path / "logs" / name).read_text()
    with pytest.raises(ValueError, match="either"):
        logger.PrintTime("file", "folder")


# func_inspect


class Model:
    def fit(self, x: int, *more: int, scale: int = 1, **others: int) -> None:
        """For `filter_args`."""


def test_the_arguments_of_a_call_are_found_by_name() -> None:
    assert func_inspect.filter_args(pow, [], (2, 3)) == {"*": [2, 3], "**": {}}
    assert func_inspect.filter_args(partial(double), [], (2,)) == {"*": [2], "**": {}}
    assert func_inspect.filter_args(Model.fit, ["self", "scale"], (None, 2, 3), {"a": 4}) == {"x": 2, "*": [3], "**": {"a": 4}}
    model = Model()
    assert func_inspect.filter_args(model.fit, [], (2,)) == {"self": model, "x": 2, "*": [], "scale": 1, "**": {}}
    with pytest.raises(ValueError, match="y"):
        func_inspect.filter_args(double, ["y"], (1,))
    with pytest.raises(ValueError, match="list of parameters"):
        func_inspect.filter_args(double, "x", (1,))


def test_functions_are_named_and_shown() -> None:
    assert func_inspect.get_func_name(double) == (["tests", "functions"], "double")
    assert func_inspect.get_func_name(Model.fit) == (["tests", "joblib_modules", "test_names", "Model"], "fit")
    assert func_inspect.format_signature(double, 2) == ("tests.functions.double", "double(2)")
    assert func_inspect.format_call(double, (2,), {}).endswith("[Memory] Calling tests.functions.double...\ndouble(2)")
    source, file, line = func_inspect.get_func_code(double)
    assert source.startswith("def double")
    assert file is not None
    assert Path(file).read_text().splitlines()[line - 1].startswith("def double")
    assert func_inspect.get_func_code(pow)[1:] == (None, -1)


# disk


def test_folders_are_made_measured_and_removed(tmp_path: Path) -> None:
    disk.mkdirp(tmp_path / "a" / "b")
    disk.mkdirp(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(5000))
    (tmp_path / "file").touch()
    assert disk.disk_used(tmp_path) == 4
    with pytest.raises(OSError, match="not empty"):
        disk.delete_folder(tmp_path / "a", allow_non_empty=False)
    disk.rm_subdirs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    disk.delete_folder(tmp_path / "nothing")
    assert (disk.memstr_to_bytes("1K"), disk.memstr_to_bytes("2.5M")) == (1024, 2621440)


# compressor


@pytest.fixture
def own_compression(monkeypatch: pytest.MonkeyPatch) -> CompressorWrapper:
    monkeypatch.setattr(compression, "_BY_NAME", dict(compression._BY_NAME))
    monkeypatch.setattr(compression, "_BY_CODE", dict(compression._BY_CODE))
    return CompressorWrapper(bz2.BZ2File, b"", ".own")


def test_a_compression_that_is_registered_is_used_by_name_and_by_suffix(
    tmp_path: Path, own_compression: CompressorWrapper
) -> None:
    register_compressor("own", own_compression)
    values = ["text" * 1000, bytes(100_000)]
    cases: list[tuple[str, Any]] = [("a.own", {}), ("b", {"compress": "own"}), ("c", {"compress": ("own", 9)})]
    for name, options in cases:
        asyncpar.dump(values, tmp_path / name, **options)
        assert (tmp_path / name).stat().st_size < 2000
        assert asyncpar.load(tmp_path / name) == values
    cached = asyncpar.Memory(tmp_path / "cache", verbose=0, compress="own").cache(double)
    assert cached("ab") == cached("ab") == "abab"


def test_a_compression_that_is_there_is_replaced_only_by_force(own_compression: CompressorWrapper) -> None:
    register_compressor("own", own_compression)
    with pytest.raises(ValueError, match="already registered"):
        register_compressor("own", own_compression)
    register_compressor("own", own_compression, force=True)
    with pytest.raises(ValueError, match="'zlib' is there already"):
        register_compressor("zlib", own_compression, force=True)
    wrong: Any
    for wrong in [(5, own_compression), ("other", bz2), ("other", CompressorWrapper(object()))]:
        with pytest.raises(ValueError, match="should"):
            register_compressor(*wrong)


# memory


def test_stores_may_be_registered_and_are_refused_when_they_are_to_be_used(tmp_path: Path) -> None:
    class Store(asyncpar.joblib.StoreBackendBase):
        pass

    memory.register_store_backend("remote", Store)
    with pytest.raises(ValueError, match="remote"):
        asyncpar.Memory(tmp_path, backend="remote")
    with pytest.raises(ValueError, match="string"):
        memory.register_store_backend(5, Store)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="StoreBackendBase"):
        memory.register_store_backend("remote", int)  # type: ignore[arg-type]


# loky


def test_the_end_of_lokys_pool_is_the_end_of_warm_workers() -> None:
    (pid,) = asyncpar.Parallel(n_jobs=2)([asyncpar.delayed(process_id)(0)])
    executor = loky.get_reusable_executor(2, timeout=60)
    assert executor is loky.get_reusable_executor(2, timeout=60)
    other = executor.submit(process_id, 0).result()
    assert psutil.pid_exists(pid)
    executor.shutdown(wait=True, kill_workers=True)
    assert not psutil.pid_exists(pid)
    assert not psutil.pid_exists(other)
    assert asyncpar.Parallel(n_jobs=2)([asyncpar.delayed(double)(2)]) == [4]
    assert loky.get_reusable_executor(2, timeout=60) is not executor
    loky.get_reusable_executor(2, timeout=60).shutdown()


def test_lokys_pool_takes_its_arguments_in_the_order_of_loky() -> None:
    with pytest.raises(ValueError, match="idle_timeout"):
        loky.get_reusable_executor(2, None, -1.0)
    executor = loky.get_reusable_executor(2, None, 60)
    assert loky.get_reusable_executor(2, timeout=60, reuse=True) is executor
    assert loky.get_reusable_executor(2, timeout=60, reuse=False) is not executor
    loky.get_reusable_executor(2, timeout=60).shutdown()


def test_the_death_of_a_worker_is_the_error_that_lokys_users_catch() -> None:
    with loky.ProcessPoolExecutor(2, timeout=5) as pool, pytest.raises(TerminatedWorkerError):
        pool.submit(kill_self, 0).result()


def test_maps_are_recognised(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "array.npy", np.arange(10))
    mapped = np.load(tmp_path / "array.npy", mmap_mode="r")
    assert has_shareable_memory(mapped[2:])
    assert not has_shareable_memory(np.arange(10)[2:])
    del mapped

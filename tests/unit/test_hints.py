"""What users write by mistake is refused at once, and the message says what to write instead."""

from __future__ import annotations

import asyncio
import contextvars
import io
import multiprocessing
import socket
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asyncpar import Parallel, ProcessExecutor, pmap
from asyncpar._wire import context_variables
from asyncpar._wire.blame import refuse, refuse_function
from tests.functions import double_soon

any_pmap: Any = pmap  # what a type checker would refuse


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("max_workers", r"max_workers \(did you mean n_jobs\?\)"),
        ("workers", r"n_jobs\?"),
        ("processes", r"n_jobs\?"),
        ("chunksize", r"batch_size\?"),
        ("return_exceptions", 'on_error="return"'),
        ("max_concurrency", r"concurrency\?"),
        ("max_per_second", r"rate\?"),
        ("max_rate", r"rate\?"),
        ("rate_limit", r"rate\?"),
        ("backend", r"executor\?"),
        ("tiemout", r"timeout\?"),
        ("Ordered", r"ordered\?"),
        ("initializer", r"executor=ProcessExecutor\(initializer=…\)"),
        ("colour", r"colour \(it has executor, n_jobs, ordered, batch_size, "),
    ],
)
def test_an_option_of_another_name_is_refused_with_ours(option: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"pmap has no option .*{hint}"):
        any_pmap(abs, [1], **{option: 1})


def test_all_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match=r"max_workers \(did you mean n_jobs\?\), chunksize \(did you mean batch_size\?\)"):
        any_pmap(abs, [1], max_workers=2, chunksize=3)


@pytest.mark.parametrize("backend", [None, "threading"])
@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("max_workers", "max_workers: did you mean n_jobs"),
        ("chunksize", "did you mean batch_size"),
        ("executor", "did you mean backend"),
        ("initialiser", "did you mean initializer"),
    ],
)
def test_parallel_says_the_same(option: str, hint: str, backend: str | None) -> None:
    options: Any = {option: 1}
    with pytest.raises(TypeError, match=hint):
        Parallel(backend=backend, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((abs(-3), [1]), r"not 3; write pmap\(f, items\): pass f itself, and not what f\(…\) returns"),
        (([1], abs), r"not \[1\]; write pmap\(f, items\): the function comes first"),
        (((abs(x) for x in [1]),), "not <generator object .* pass f itself"),
    ],
)
def test_what_is_no_function_is_refused_with_a_guess(arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        any_pmap(*arguments)


def test_a_coroutine_in_the_place_of_its_function_is_refused_and_closed() -> None:
    with pytest.raises(TypeError, match=r"not the coroutine that calling double_soon\(…\) has made; write pmap\(double_soon, "):
        any_pmap(double_soon(1), [1])  # a warning that it was never awaited would be an error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: multiprocessing.get_context("spawn"), 'executor="process"'),
        (lambda: ProcessExecutor, r"pass an object: ProcessExecutor\(\)"),
        (lambda: 4, r"did you mean n_jobs=4\?"),
        (
            lambda: object(),
            "executor must be a name, an Executor, a concurrent.futures pool or None, not <object object at [^;]*$",
        ),
    ],
)
def test_other_executors_are_refused_with_ours(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        any_pmap(abs, [1], executor=make())


def test_a_pool_is_refused() -> None:
    program = "import multiprocessing, asyncpar; asyncpar.pmap(abs, [1], executor=multiprocessing.Pool(1))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert 'asyncpar has workers of its own: pass executor="process"' in done.stderr


def test_an_event_loop_is_refused() -> None:
    loop = asyncio.new_event_loop()
    with pytest.raises(TypeError, match="leave it out: coroutine functions run in the event loop that awaits the map"):
        any_pmap(double_soon, [1], executor=loop)
    loop.close()


@pytest.mark.parametrize(
    ("name", "meant"), [("threads", "thread"), ("loky", "process"), ("sequential", "inline"), ("proces", "process")]
)
def test_executors_by_other_names_are_refused_with_ours(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"or an Executor object; did you mean '{meant}'"):
        pmap(abs, [1], executor=name)


IN_THE_WORKER = "make one inside the function, or once in each worker by an `initializer`"


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (threading.Lock, f"it belongs to this process: {IN_THE_WORKER}"),
        (threading.local, f"it belongs to this process: {IN_THE_WORKER}"),
        (lambda: contextvars.ContextVar("in no module"), "workers have contexts of their own: pass what its get() returns"),
        (lambda: sqlite3.connect(":memory:"), IN_THE_WORKER),
        (socket.socket, IN_THE_WORKER),
        (lambda: io.BufferedReader(io.BytesIO()), "pass its path, and open it inside the function"),
        (lambda: (x for x in [1]), "make a list of it"),
        (lambda: weakref.ref(threading.Lock), "pass the object that it refers to"),
    ],
)
def test_what_cannot_be_pickled_comes_with_a_remedy(make: Callable[[], Any], remedy: str) -> None:
    culprit = make()
    error = TypeError("cannot pickle it")
    for refusal in (refuse("the item", [culprit], "arguments", error), refuse_function(lambda: culprit, error)):
        assert f"; {remedy}, or run it with executor=" in str(refusal)
    if hasattr(culprit, "close"):
        culprit.close()


def test_not_every_trial_searches_the_modules_for_a_context_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searches = []
    search = context_variables._search

    def counted(variable: contextvars.ContextVar[Any]) -> context_variables.Home | None:
        searches.append(variable)
        return search(variable)

    monkeypatch.setattr(context_variables, "_search", counted)
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("in no module")
    refusal = refuse("the item", [[0] * 99, {"key": [variable]}], "arguments", TypeError("cannot pickle it"))
    assert "arguments[1]['key'][0], a _contextvars.ContextVar, cannot be pickled" in str(refusal)
    assert len(searches) == 2  # in all trials together, and to look for parts of it


@pytest.mark.parametrize(
    ("make", "remedy"), [(threading.Lock, "return plain values instead"), (lambda: (x for x in [1]), "make a list of it")]
)
def test_a_result_that_cannot_be_pickled_comes_with_a_remedy(make: Callable[[], Any], remedy: str) -> None:
    assert remedy in str(refuse("the result", make(), "result", TypeError("cannot pickle it")))

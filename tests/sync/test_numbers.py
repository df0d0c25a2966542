"""What `Parallel` makes of numbers of every kind and size: it refuses them by name, or does as it should."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from asyncpar import Parallel, delayed, effective_n_jobs, parallel_config
from tests.contract.test_numbers import ARGUMENTS, LONG, NUMBERS, OPTIONS, REAL, WHOLE, Two, inf, is_among, nan, split
from tests.functions import double

NAMES = {  # {of `Parallel`: as messages have it}
    "idle_worker_timeout": "idle_timeout",
    **{name: name for name in ARGUMENTS if name not in ("idle_timeout", "max_workers")},
}
OF_PARALLEL = {
    "timeout": OPTIONS["timeout"],
    "batch_size": WHOLE,
    "seed": OPTIONS["seed"],
    "max_nbytes": OPTIONS["max_nbytes"],
    "pre_dispatch": ["2", LONG, 10**400, *REAL],
    "verbose": [0, -1, 10**400, inf, True, *REAL],
    **{name: ARGUMENTS[other] for name, other in NAMES.items()},
}


@pytest.mark.parametrize(("name", "accepted"), OF_PARALLEL.items(), ids=OF_PARALLEL)
def test_parallel_takes_a_number_or_refuses_it(name: str, accepted: list[Any]) -> None:
    good, bad = split(accepted)
    for number in good:
        options: Any = {name: number}
        assert Parallel(n_jobs=2, **options)(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]
    for number in bad:
        options = {name: number}
        with pytest.raises(ValueError, match=f"^{NAMES.get(name, name)} must be .* not "):
            Parallel(n_jobs=2, **options)


@pytest.mark.parametrize("backend", ["process", "thread"])
def test_n_jobs_is_what_int_makes_of_it(backend: str) -> None:
    for number in NUMBERS:
        if is_among(number, [0, inf]) or number != number:
            with pytest.raises(ValueError, match=r"^n_jobs must be a number of workers, 1 or more, a negative one .* not"):
                Parallel(n_jobs=number, backend=backend)([delayed(double)(1)])
        else:
            assert Parallel(n_jobs=number, backend=backend)(delayed(double)(x) for x in range(5)) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("number", ["2", 2.0, 2.5, np.int64(2), np.float64(2), Fraction(5, 2), Decimal(2), Two()], ids=repr)
def test_settings_take_the_same(number: Any) -> None:
    assert effective_n_jobs(number) == 2
    with parallel_config(n_jobs=number):
        assert Parallel().n_jobs == 2


@pytest.mark.parametrize("number", [inf, nan])
def test_settings_refuse_the_same(number: float) -> None:
    with pytest.raises(ValueError, match="n_jobs must be a number"):
        parallel_config(n_jobs=number)
    with pytest.raises(ValueError, match="n_jobs must be a number"):
        effective_n_jobs(number)

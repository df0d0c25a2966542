"""Preloaded into a zygote, this has drawn from every generator before a worker is forked."""

import random
import secrets
import tempfile
import uuid
from functools import cache

import numpy as np

rng = np.random.default_rng()


@cache
def rng_of_this_worker() -> np.random.Generator:
    return np.random.default_rng()


def draw(_: object) -> dict[str, object]:
    """A number, or the like, from each generator of this process."""
    return {
        "random": random.random(),
        "numpy.random": float(np.random.random()),
        "numpy.random.default_rng": float(np.random.default_rng().random()),
        "a generator made in the worker": float(rng_of_this_worker().random()),
        "secrets": secrets.token_hex(),
        "uuid4": uuid.uuid4(),
        "tempfile": tempfile.mktemp(),
    }


draw(None)
rng_of_this_worker.cache_clear()

"""What to do about an object that cannot be pickled, depending on its class."""

import re

_IN_THE_WORKER = "make one inside the function, or once in each worker by an `initializer`"
_ITERATORS = re.compile(r"generator|async_generator|.*_iterator|itertools\..*")
_REMEDIES = [  # (qualified names of classes, what to do); the first match counts
    (_ITERATORS, "make a list of it"),
    (re.compile(r"_contextvars\..*"), "workers have contexts of their own: pass what its get() returns"),
    (re.compile(r"(_thread|threading|multiprocessing\.synchronize)\..*"), f"it belongs to this process: {_IN_THE_WORKER}"),
    (re.compile(r"(_io|tempfile)\..*"), "pass its path, and open it inside the function"),
    (
        re.compile(r"coroutine|(_asyncio|asyncio|uvloop)\..*"),
        "await it here, and pass what it returns",
    ),
    (re.compile(r"weakref\..*"), "pass the object that it refers to"),
    (re.compile(r"(?i).*(socket|context|connection|conn|cursor|session|engine|client|channel|pool)"), _IN_THE_WORKER),
]


def remedy_for(type_name: str, *, returned: bool) -> str:
    """What to do about an object of that class, or an empty text. `returned`: a call returned it, alone or in its result."""
    remedy = next((remedy for pattern, remedy in _REMEDIES if pattern.fullmatch(type_name)), "")
    if remedy and returned and not _ITERATORS.fullmatch(type_name):
        return "return plain values instead"
    return remedy

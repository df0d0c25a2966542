"""joblib's module `func_inspect`: what a function is called, how it is written, and what a call gives it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from asyncpar._basics.wording import call_in_words
from asyncpar._cache.binding import make_binder


def get_func_code(func: Callable[..., Any]) -> tuple[str, str | None, int]:
    """Source, file and first line; what else there is, and -1, if the source cannot be found."""
    try:
        lines, first = inspect.getsourcelines(func)
        return "".join(lines), inspect.getsourcefile(func), first
    except (OSError, TypeError):
        code = getattr(func, "__code__", None)
        return (repr(func), None, -1) if code is None else (repr(code.co_code), code.co_filename, -1)


def get_func_name(func: Any, resolv_alias: bool = True, win_characters: bool = True) -> tuple[list[str], str]:
    """The modules and classes around it, from the outside, and its name."""
    name = getattr(func, "__name__", "unknown")
    around = getattr(func, "__qualname__", name).split(".")[:-1]
    return [*(getattr(func, "__module__", None) or type(func).__module__).split("."), *around], name


def filter_args(
    func: Any, ignore_lst: Collection[str], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The arguments of a call by name, defaults included, without those in `ignore_lst`. The rest is under "*" and "**".

    Raises:
        ValueError: `ignore_lst` has a name that is no parameter.
        TypeError: the function cannot be called so.
    """
    if isinstance(ignore_lst, str):
        raise ValueError(f"ignore_lst must be a list of parameters to ignore, not {ignore_lst!r}")
    if not inspect.isfunction(func) and not inspect.ismethod(func):
        return {"*": list(args), "**": dict(kwargs or {})}
    if inspect.ismethod(func):
        func, args = func.__func__, (func.__self__, *args)
    bind, names = make_binder(func, ignore_lst)
    values = bind(*args, **(kwargs or {}))
    return {_shown(name): _as_joblib_has_it(name, value) for name, value in zip(names, values, strict=True)}


def _shown(name: str) -> str:
    return "**" if name.startswith("**") else "*" if name.startswith("*") else name


def _as_joblib_has_it(name: str, value: Any) -> Any:
    return list(value) if _shown(name) == "*" else value


def format_signature(func: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """The module and the name with dots, and the call as it would be written."""
    modules, name = get_func_name(func)
    return ".".join([*modules, name]), call_in_words(func, args, kwargs)


def format_call(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], object_name: str = "Memory") -> str:
    """What is printed before a call."""
    path, signature = format_signature(func, *args, **kwargs)
    return f"{'_' * 80}\n[{object_name}] Calling {path}...\n{signature}"

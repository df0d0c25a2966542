"""joblib's module `disk`: folders, and sizes in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncpar._cache.settings import to_size


def disk_used(path: str | os.PathLike[str]) -> int:
    """The size of a folder in kB."""
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file()) // 1024


def memstr_to_bytes(text: str) -> int:
    """A size such as "1M" in bytes.

    Raises:
        ValueError: it is not of that form.
    """
    size = to_size(text, "text")
    assert size is not None, "only None has none"
    return size


def mkdirp(d: str | os.PathLike[str]) -> None:
    """Makes a folder with those around it, unless it is there."""
    os.makedirs(d, exist_ok=True)  # noqa: PTH103 - pathlib takes the empty name for the current folder


def rm_subdirs(path: str | os.PathLike[str], onerror: Callable[..., Any] | None = None) -> None:
    """Removes the folders in a folder."""
    for folder in Path(path).iterdir():
        if folder.is_dir():
            delete_folder(folder, onerror)


def delete_folder(
    folder_path: str | os.PathLike[str], onerror: Callable[..., Any] | None = None, allow_non_empty: bool = True
) -> None:
    """Removes a folder.

    Raises:
        OSError: it is not empty, and may not be so.
    """
    if not allow_non_empty:
        Path(folder_path).rmdir()
    elif Path(folder_path).is_dir():
        shutil.rmtree(folder_path, onerror=onerror)

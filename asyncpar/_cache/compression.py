"""Compression by name and level: what `compress=` means, and the modules behind the names.

`gzip` is zlib in another envelope, and `xz` is lzma; they are here because users know them by these names. `lz4` needs the
package of that name, and `zstd` needs Python 3.14 or backports.zstd.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import IO, Any, NamedTuple, TypeAlias

from asyncpar._basics.validation import is_int
from asyncpar._memory.buffers import Buffer

CompressOption: TypeAlias = "bool | int | str | tuple[str, int]"

_DEFAULT_LEVEL = 3  # as in joblib
_HIGHEST = 9


class Method(NamedTuple):
    """A way to compress. `code` is what an entry says about it; `modules` are tried in turn; `begins`: how all that it makes
    begins.

    `compress(module, data, level)` and `decompress(module, data)` call the module.
    """

    name: str
    code: int
    suffixes: tuple[str, ...]
    begins: bytes
    modules: tuple[str, ...]
    compress: Callable[[Any, Buffer, int], bytes]
    decompress: Callable[[Any, Buffer], bytes] = lambda module, data: module.decompress(data)
    remedy: str = "this Python was built without it"

    def module(self) -> Any:
        """Raises ValueError if none is installed."""
        for name in self.modules:
            try:
                return importlib.import_module(name)
            except ImportError:
                continue
        raise ValueError(f"compression {self.name!r} is not available here: {self.remedy}")


class Compression(NamedTuple):
    """A method with its level."""

    method: Method
    level: int

    def compress(self, data: Buffer) -> bytes:
        return self.method.compress(self.method.module(), data, self.level)


def _with_level(module: Any, data: Buffer, level: int) -> bytes:
    return bytes(module.compress(data, level))


_METHODS = (
    Method("zlib", 1, (".z",), b"\x78", ("zlib",), _with_level),
    Method("gzip", 2, (".gz",), b"\x1f\x8b", ("gzip",), _with_level),
    Method("bz2", 3, (".bz2",), b"BZ", ("bz2",), lambda module, data, level: module.compress(data, max(level, 1))),
    Method(
        "lzma",
        4,
        (".lzma",),
        b"\x5d\x00",
        ("lzma",),
        lambda module, data, level: module.compress(data, module.FORMAT_ALONE, preset=level),
    ),
    Method(
        "xz",
        5,
        (".xz",),
        b"\xfd7zXZ",
        ("lzma",),
        lambda module, data, level: module.compress(data, module.FORMAT_XZ, preset=level),
    ),
    Method(
        "lz4",
        6,
        (".lz4",),
        b"\x04\x22\x4d\x18",
        ("lz4.frame",),
        lambda module, data, level: module.compress(data, compression_level=level),
        remedy="pip install lz4",
    ),
    Method(
        "zstd",
        7,
        (".zst", ".zstd"),
        b"\x28\xb5\x2f\xfd",
        ("compression.zstd", "backports.zstd"),
        _with_level,
        remedy="use Python 3.14, or pip install backports.zstd",
    ),
)
_BY_NAME = {method.name: method for method in _METHODS}
_BY_CODE = {method.code: method for method in _METHODS}
_FIRST_ADDED = 128  # the code of a method that is added; those below are asyncpar's


def add_method(
    name: str, suffix: str, begins: bytes, compress: Callable[[Buffer, int], bytes], decompress: Callable[[Buffer], bytes]
) -> None:
    """Adds a way to compress, or replaces it. Its code follows from its name, so any program that adds it can read its files.

    Raises:
        ValueError: the name is one of asyncpar's own, or has the same code as another.
    """
    code = _FIRST_ADDED + zlib.crc32(name.encode()) % _FIRST_ADDED
    before = _BY_NAME.get(name) or _BY_CODE.get(code)
    if before is not None and (before.name != name or before.code < _FIRST_ADDED):
        raise ValueError(f"compression {before.name!r} is there already, and {name!r} would be mistaken for it")
    method = Method(
        name,
        code,
        (suffix,) if suffix else (),
        begins,
        ("zlib",),
        lambda _, data, level: compress(data, level),
        lambda _, data: decompress(data),
    )
    _BY_NAME[name] = _BY_CODE[code] = method


def is_method(name: str) -> bool:
    """Whether there is a compression with this name."""
    return name in _BY_NAME


def parse_compress(compress: CompressOption, file_name: str = "") -> Compression | None:
    """What the user has asked for; the suffix of the file decides about the method if nothing else does.

    Raises:
        ValueError: there is no such method or level, or it is not installed.
    """
    named, level = None, _DEFAULT_LEVEL
    if isinstance(compress, str):
        named = compress
    elif isinstance(compress, tuple):
        if len(compress) != 2:
            raise ValueError(f"compress takes a method and a level, such as ('zlib', 3), not {compress!r:.200}")
        named, level = compress
    elif is_int(compress):
        level = int(compress)
    elif not isinstance(compress, bool):
        raise ValueError(
            f"compress is a bool, a level from 0 to {_HIGHEST}, a method or (method, level), not {compress!r:.200}"
        )
    if not is_int(level) or not 0 <= level <= _HIGHEST:
        raise ValueError(f"the level of a compression is a number from 0 to {_HIGHEST}, not {level!r:.200}")
    if named is not None and named not in _BY_NAME:
        raise ValueError(f"there is no compression {named!r:.50}; known are {', '.join(_BY_NAME)}")
    suffixed = next((method for method in _BY_NAME.values() if file_name.endswith(method.suffixes)), None)
    if named is None and suffixed is None and (compress is False or level == 0):
        return None
    method = _BY_NAME[named] if named is not None else suffixed or _BY_NAME["zlib"]
    method.module()
    return Compression(method, level if named is not None else level or _DEFAULT_LEVEL)


def decompress(code: int, data: Buffer) -> bytes:
    """The data again.

    Raises:
        ValueError: no method has this code, or its module is not installed.
        Exception: the data is damaged.
    """
    method = _BY_CODE.get(code)
    if method is None:
        raise ValueError(f"it is compressed in a way (number {code}) that this version does not know")
    return method.decompress(method.module(), data)


def decompress_alone(file: IO[bytes]) -> bytes | None:
    """What a file has that was compressed as a whole; None if it was not. Some of it has been read then.

    Raises:
        Exception: the data is damaged.
    """
    head = file.read(max(len(method.begins) for method in _BY_NAME.values()))
    method = next((method for method in _BY_NAME.values() if method.begins and head.startswith(method.begins)), None)
    return None if method is None else method.decompress(method.module(), head + file.read())

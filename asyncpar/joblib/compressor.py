"""joblib's module of compressions: `register_compressor` adds one to those that `dump` and `Memory` know."""

from __future__ import annotations

import io
from typing import Any

from asyncpar._cache.compression import add_method, is_method
from asyncpar._memory.buffers import Buffer


class CompressorWrapper:
    """A compression, as files of bytes over other files.

    Args:
        obj: is called with a file, a mode ("wb" or "rb") and perhaps `compresslevel`, and returns a file.
        prefix: how all that it writes begins.
        extension: of files that are compressed with it.
    """

    def __init__(self, obj: Any, prefix: bytes = b"", extension: str = "") -> None:
        self.fileobj_factory = obj
        self.prefix = prefix
        self.extension = extension

    def compressor_file(self, fileobj: Any, compresslevel: int | None = None) -> Any:
        """A file that writes to `fileobj`."""
        level = {} if compresslevel is None else {"compresslevel": compresslevel}
        return self.fileobj_factory(fileobj, "wb", **level)

    def decompressor_file(self, fileobj: Any) -> Any:
        """A file that reads from `fileobj`."""
        return self.fileobj_factory(fileobj, "rb")


def register_compressor(compressor_name: str, compressor: CompressorWrapper, force: bool = False) -> None:
    """Adds a compression. A program that loads what has been dumped with it must have registered it, too.

    Args:
        force: it replaces one of the same name.

    Raises:
        ValueError: there is one of this name already, or one of the arguments is not of its kind.
    """
    if not isinstance(compressor_name, str):
        raise ValueError(f"Compressor name should be a string, not {compressor_name!r:.200}")
    if not isinstance(compressor, CompressorWrapper):
        raise ValueError(f"Compressor should implement the CompressorWrapper interface, and {compressor!r:.200} does not")
    factory = compressor.fileobj_factory
    if factory is not None and not all(hasattr(factory, name) for name in ("read", "write", "seek", "tell")):
        raise ValueError(
            f"Compressor 'fileobj_factory' attribute should implement the file object interface, and {factory!r:.200} does not"
        )
    if is_method(compressor_name) and not force:
        raise ValueError(f"Compressor {compressor_name!r} already registered.")

    def compress(data: Buffer, level: int) -> bytes:
        packed = _LeftOpen()
        with compressor.compressor_file(packed, level) as file:
            file.write(data)
        return packed.getvalue()

    def decompress(data: Buffer) -> bytes:
        with compressor.decompressor_file(io.BytesIO(data)) as file:
            unpacked: bytes = file.read()
        return unpacked

    add_method(compressor_name, compressor.extension, compressor.prefix, compress, decompress)


class _LeftOpen(io.BytesIO):
    """What was written is there when the file over it has been closed, which may close this one."""

    def close(self) -> None:
        """Nothing."""

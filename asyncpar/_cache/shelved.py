"""A result that stays on disk, and is read when it is needed."""

from __future__ import annotations

from typing import Any

from asyncpar._basics.validation import UNSET
from asyncpar._cache.settings import Settings


class MemorizedResult:
    """A reference to the result of a cached call, as `call_and_shelve` returns it.

    It is small, and can be pickled, so a worker can compute a large result and send back only where it is. If the result
    could not be kept on disk (there is no location, or the disk is full), the reference holds the result itself.

    Attributes:
        func: name of the function.

    Example:
        >>> import tempfile
        >>> from asyncpar import Memory
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     squares = Memory(folder, verbose=0).cache(lambda n: [i * i for i in range(n)])
        ...     shelved = squares.call_and_shelve(4)
        ...     shelved.get()
        [0, 1, 4, 9]
    """

    __module__ = "asyncpar"

    def __init__(self, func: str, settings: Settings, folder: str, key: bytes, value: Any = UNSET) -> None:
        self.func = func
        self._settings = settings
        self._folder = folder
        self._key = key
        self._value = value

    def get(self) -> Any:
        """The result, read from the disk (or mapped, with `mmap_mode`) at each call.

        Raises:
            KeyError: it is not there any more: it has been cleared, pruned, or damaged.
        """
        if self._value is not UNSET:
            return self._value
        if self._folder:
            found = self._settings.store().read(self._folder, self._key)
            if found is not None:
                return found.value
        raise KeyError(f"the result of {self.func} is not in the cache any more; call the function again")

    async def aget(self) -> Any:
        """The same, and the event loop goes on while the disk is read."""
        from asyncpar._platform.off_loop import run_off_loop

        return await run_off_loop(self.get)

    def clear(self) -> None:
        """Forgets the result."""
        self._value = UNSET
        if self._folder:
            self._settings.store().remove(self._folder, self._key)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._value is UNSET:
            del state["_value"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"_value": UNSET} | state)

    def __repr__(self) -> str:
        return f"MemorizedResult({self.func}, {self._key.hex()})"

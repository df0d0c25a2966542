"""Calls and results as bytes: columns of values, pickled whole, or one by one where something in them fails.

A batch of calls is a tuple of columns, one for each argument; its results are one more column. A column travels

- **in the message**, if every element is a plain scalar, or if it is a range or an array of plain numbers: nothing in it can
  fail, and writing and reading it takes about 15 ns an element;
- **whole**, in a pickle of its own. What recurs in it, such as a model, a class or the keys of records, is written once, and
  elements that share an object share it at the other end, too, as they do in a plain loop. It is pickled **by name** first,
  which is quicker, but not always enough (`pickler.py`);
- **one by one**, each element in a pickle of its own, which takes two to five times as long.

Any object may fail to be pickled or read, and then only its own call must fail. So a column is tried whole. If it cannot be
pickled, the encoder pickles its elements one by one. If it cannot be read, the decoder cuts the pickle apart (`apart.py`) and
reads its elements one by one, since it may be the result of calls that have been made. Both take long, so once it has
happened, both sides send the columns of that run one by one.

Buffers of `OUT_OF_BAND_BYTES` or more (PEP 574) leave the pickle and travel beside it uncopied. Smaller ones stay inside, where
they cost a copy, but have no memory of their own that would outlive its neighbours. Buffers for which the encoder's `placer`
finds room go to shared memory (`_memory`), and their bytes do not travel.

Encoders and decoders in the parent have a pace (`pace.py`), so that large messages do not block its event loop. The pickle of a
large element or column travels out of band, too. If it goes to shared memory, it does so in the pieces in which it was written.

An element that fails is replaced by an `Undeliverable`, and the call with that element fails with its error.
"""

import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias

from asyncpar._memory.buffers import Buffer
from asyncpar._wire.pace import TooLarge

PROTOCOL = 5
OUT_OF_BAND_BYTES = 1 << 14  # below this, the copy costs less than a system-call segment and an allocation; a guess
ELEMENT_WEIGHT = 64  # pickling or reading an element by itself takes 0.5 µs, as long as this many bytes of small objects

NOT_OF_AN_ELEMENT = (KeyboardInterrupt, TooLarge)  # Ctrl-C, and our own pace; the pickled object raises everything else

Column: TypeAlias = Sequence[Any]
Pickled: TypeAlias = Buffer | pickle.PickleBuffer | None  # None: the pickle is the first of its buffers
EncodedElements: TypeAlias = tuple[list[Pickled], list[int]]

# Plain tuples, which pickle three times as fast as named ones. (column,) is a column in the message. (pickles, counts) is a
# column of separate pickles, with the number of the message's buffers that each of them uses. (pickle, count, shares, brings)
# is a column that is pickled whole: its pickle, the number of its buffers, whether calls may be given the same pages, and
# whether its last element is the list of the definitions that it brings (`definitions.py`). As with the elements of a list,
# calls may share pages only if each element is large by itself.
EncodedColumn: TypeAlias = tuple[Column] | EncodedElements | tuple[Pickled, int, bool, bool]


BY_NAME, WHOLE, ONE_BY_ONE = range(3)  # manners in which columns of objects are pickled; a run goes from one on to the next


class Undeliverable:
    """Replaces an element of a column that could not be pickled or read; `error` says why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

"""pandas: frames, series and indexes are their labels and their columns, however pandas has arranged them in blocks."""

from __future__ import annotations

import sys
from typing import Any

import numpy
import pandas

from asyncpar._cache.array_parts import parts_of_array
from asyncpar._cache.forms import Forms


def parts_of(value: Any, forms: Forms) -> object | None:
    """What stands for a value of pandas; None if its pickle does."""
    if isinstance(value, pandas.DataFrame):
        columns = [_column(value.iloc[:, place].array) for place in range(value.shape[1])]
        return value.columns, value.index, columns, _settings(value)
    if isinstance(value, pandas.Series):
        return value.name, value.index, _column(value.array), _settings(value)
    if isinstance(value, pandas.RangeIndex):
        return value.name, value.start, value.stop, value.step
    if isinstance(value, pandas.MultiIndex):
        return list(value.names), [_column(value.get_level_values(level).array) for level in range(value.nlevels)]
    if isinstance(value, pandas.Index):
        return value.name, _column(value.array), getattr(value, "freqstr", None)
    if isinstance(value, pandas.api.extensions.ExtensionArray):
        return _column(value)
    if isinstance(value, pandas.Timestamp | pandas.Timedelta):
        return str(value.unit), value.asm8.view("i8").item(), getattr(value, "tzinfo", None)
    return None


def same_as(kind: type) -> type:
    """The class whose objects have the same name in a key."""
    return kind


def _settings(value: Any) -> object:
    """What a frame has besides labels and values. Classes derived from it name what they have added."""
    added = {name: getattr(value, name, None) for name in value._metadata if name != "_name"}  # a series is asked for its name
    return value.attrs, value.flags.allows_duplicate_labels, added


def _column(array: Any) -> object:
    """The values of a column. Types with a missing value of their own are told by their name."""
    name = str(array.dtype)
    if isinstance(array, pandas.Categorical):
        return name, array.categories, bool(array.ordered), parts_of_array(array.codes)
    if isinstance(array, pandas.arrays.DatetimeArray | pandas.arrays.TimedeltaArray):
        return name, parts_of_array(array.asi8)
    if isinstance(array, pandas.arrays.NumpyExtensionArray):
        return name, parts_of_array(array.to_numpy())
    missing = parts_of_array(numpy.asarray(array.isna()))
    if "pyarrow" in sys.modules and hasattr(array, "__arrow_array__"):
        from asyncpar._cache.arrow_parts import parts_of_column

        try:
            return name, repr(array.dtype), missing, parts_of_column(array.__arrow_array__())
        except Exception:  # a type that Arrow does not know: its values one by one
            return name, missing, list(array)
    return name, repr(array.dtype), missing, [held for held in array if held is not pandas.NA]

"""joblib's module `numpy_pickle`. `load` reads joblib's files, too; `dump` writes asyncpar's."""

from asyncpar._cache.persist import dump as dump
from asyncpar._cache.persist import load as load

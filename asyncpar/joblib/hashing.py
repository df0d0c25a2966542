"""joblib's module `hashing`."""

from asyncpar._cache.persist import hash as hash  # noqa: A004 - joblib's name

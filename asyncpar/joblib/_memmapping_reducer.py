"""joblib's module of maps for arguments. asyncpar has none; only the question is left."""

from asyncpar.joblib.pool import has_shareable_memory as has_shareable_memory

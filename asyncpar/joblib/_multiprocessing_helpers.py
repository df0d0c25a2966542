"""joblib's module that says whether there is multiprocessing."""

import multiprocessing as mp

__all__ = ["mp"]

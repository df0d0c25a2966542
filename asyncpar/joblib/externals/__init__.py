"""The libraries that joblib has copies of: cloudpickle is the original, and loky is asyncpar."""

import cloudpickle as cloudpickle

"""Preloaded into a zygote, this says that it is being loaded, and is loaded once the gate is there."""

import os
import time
from pathlib import Path

Path(os.environ["ASYNCPAR_TEST_LOADING"]).touch()
while not Path(os.environ["ASYNCPAR_TEST_GATE"]).exists():
    time.sleep(0.01)

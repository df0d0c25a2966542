"""Preloaded into a zygote, this makes requests pile up before it answers any."""

import time

time.sleep(0.3)

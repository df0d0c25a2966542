"""Preloaded into a zygote, this takes away what the kernel does for it: no worker is killed because its zygote has died."""

from __future__ import annotations

from asyncpar._child import zygote

zygote._outlive_parent()
zygote._prctl = None

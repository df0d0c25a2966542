"""Preloaded into a zygote, this disables the kernel's help: no worker is killed when its zygote has died."""

from __future__ import annotations

from asyncpar._child import zygote

zygote._outlive_parent()
zygote._prctl = None

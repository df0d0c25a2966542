"""Whether a folder is on another machine, where looking at a file may take long."""

from __future__ import annotations

from pathlib import Path

_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "tmpfs", "ramfs", "overlay", "apfs", "hfs"}
)


def is_local(folder: str) -> bool:
    """Whether it is known to be on a file system of this machine."""
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:  # no Linux: nothing is known
        return False
    best, kind = "", ""
    for line in lines:
        _, mount, this, *_ = line.split(" ")
        mount = mount.encode().decode("unicode_escape")
        if len(mount) >= len(best) and (folder == mount or folder.startswith(mount.rstrip("/") + "/")):
            best, kind = mount, this
    return kind in _LOCAL

"""`python -m asyncpar cache ...` looks after a disk cache."""

from __future__ import annotations

import sys


def main() -> int:
    """Runs what the arguments say."""
    if sys.argv[1:2] == ["cache"]:
        from asyncpar._cache.command import run

        return run(sys.argv[2:])
    print("usage: python -m asyncpar cache {ls,stats,verify,prune,clear} FOLDER", file=sys.stderr)
    return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2


if __name__ == "__main__":
    sys.exit(main())

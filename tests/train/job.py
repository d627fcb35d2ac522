"""What each of several processes runs: ``llavakit train`` with each of the arguments in turn, in one process group."""

from __future__ import annotations

import sys

from llavakit.base import dist
from llavakit.cli import main

if __name__ == "__main__":
    with dist.start():
        for arguments in sys.argv[1:]:
            if code := main(["train", *arguments.split()]):
                sys.exit(code)

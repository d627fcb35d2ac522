"""Ours against the reference implementation, number for number: one table row per claim.

    python benchmarks/parity.py [WORD ...]     rows whose name has one of the words; all of them without

Exit code 1 when a row is over its bound. The rows lie in ``benchmarks/rows``; ``tests/test_parity.py`` asserts each.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Nothing here may reach a hub; set before transformers is imported anywhere.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.rows import all_rows
from llavakit.base.log import table


def main(words: list[str]) -> int:
    rows = [row for row in all_rows() if not words or any(word in row.what for word in words)]
    if not rows:
        print(f"no row has {' or '.join(words)} in its name; there are: {'; '.join(r.what for r in all_rows())}")
        return 2
    cells, passed = [], True
    for row in rows:
        start = time.perf_counter()
        worst = row.measure()
        good = worst <= row.bound
        passed &= good
        seconds = f"{time.perf_counter() - start:.1f} s"
        cells.append([row.what, row.against, f"{worst:.3g}", f"{row.bound:.3g}", "yes" if good else "NO", seconds])
    print(table(cells, ["what", "against", "worst difference", "bound", "pass", "time"]))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

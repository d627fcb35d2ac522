"""Builds a small world, pretrains backbones, aligns, tunes, evaluates, and writes a report: the whole path in minutes.

Ends with a table, OUT/report.html, OUT/results.json, and a model in OUT/model to talk to.
"""

from __future__ import annotations

import argparse

HELP = "the whole path in miniature, here and now"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/demo", help="where everything goes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of training (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with a demo that was interrupted")
    parser.add_argument("--json", action="store_true", help="print results.json instead of the table")


def run(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from llavakit.demo.run import demo, summary

    out = Path(args.out)
    results = demo(out, args.seed, args.resume)
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print(f"\n{summary(results)}\n")
    print(f"{results['seconds']:.0f} s, peak memory {results['peak_memory_gib']:.1f} GiB. Report: {out}/report.html")
    print(f'Now ask: llavakit ask {out}/model --image {out}/world/images/test/00000.jpg "Describe the image briefly."')

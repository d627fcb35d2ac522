"""Builds a mixture from raw annotations as they are downloaded: OUT/NAME.jsonl in LLaVA's format, and its provenance.

    llavakit data build llava15-mix --root RAW --out DIR
    llavakit data build my_mix.yaml --root RAW --out DIR

Annotation files are found by their official names in RAW or up to two folders below; images lie under RAW as LLaVA
lays them out (coco/train2017, gqa/images, ocr_vqa/images, textvqa/train_images, vg/VG_100K, vg/VG_100K_2).
"""

from __future__ import annotations

import argparse

HELP = "raw annotations to one file in LLaVA's format"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mixture", help="name of a mixture (llava15-mix, llava15-align, ...), or a YAML or JSON file")
    parser.add_argument("--root", required=True, help="folder of the raw annotations and images")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="sources built at once (default: %(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="build without sources that are not there")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def run(args: argparse.Namespace) -> None:
    import json

    from llavakit.data.blend import resolve
    from llavakit.data.build import build

    built = build(resolve(args.mixture), args.root, args.out, args.seed, args.workers, args.allow_missing)
    if args.json:
        print(json.dumps({"file": str(built.path), "records": built.records, "sources": built.sources}, indent=2))
    else:
        print(f"{built.text()}\n\n{built.path}: {built.records:,} records; image names are relative to {args.root}")

"""Writes a data set as shards: tar files with records and pictures, for object stores and many nodes.

    llavakit data shard mix.jsonl --images RAW --out shards
    llavakit data shard shards --check

webdataset's layout, with Megatron-Energon's index beside each tar: webdataset reads them as they are, Energon after its
`energon prepare`. A recipe takes the folder or its URL as a source: `path: s3://bucket/shards` (any file system of
fsspec). --check compares copied shards with the hashes in their shards.json; exit code 1 when one is not as it was.
"""

from __future__ import annotations

import argparse

HELP = "a data set as tar shards"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="a .json or .jsonl file of conversations; with --check a folder of shards")
    parser.add_argument("--images", help="folder of the images (default: beside the file)")
    parser.add_argument("--out", help="folder to write to")
    parser.add_argument("--samples", type=int, default=5000, help="in a shard (default: %(default)s)")
    parser.add_argument("--on-bad", choices=("stop", "skip"), default="stop", help="at a record that cannot be read")
    parser.add_argument("--check", action="store_true", help="check written shards")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from llavakit.base.errors import BadRequest
    from llavakit.base.log import log
    from llavakit.data.sources.llava import LlavaSource
    from llavakit.data.tars import check_shards, write_shards

    if args.check:
        problems = check_shards(Path(args.target))
        print("\n".join(problems) if problems else f"{args.target}: all shards are as they were written")
        return 1 if problems else 0
    if args.out is None:
        raise BadRequest("--out is needed: the folder to write the shards to")
    source = LlavaSource(args.target, args.images)
    made = write_shards(source, Path(args.out), args.samples, args.on_bad == "skip")
    for reason, count in made.left_out.most_common():
        log.warning(f"{count:,} left out: {reason}")
    print(f"{args.out}: {made.samples:,} of {len(source):,} records in {made.shards:,} shards")
    return 0

"""What reading the data costs: start-up and memory as records grow, and samples per second of a core.

    python benchmarks/loading.py [--records 10000,100000,1000000] [--samples 64]

The original's way is its LazySupervisedDataset: every process parses the whole JSON into objects, and each sample is
decoded, padded and normalised by the image processor, tokenised whole and once more turn by turn for its mask, and
padded to the longest of its batch. Ours: a process holds places in the file (``first``: found now; ``again``: from the
cache folder), and samples are packed. Each start is a process of its own; its memory is its peak, imports included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.images import encoded
from llavakit.chat.template import get_template
from llavakit.data.loader import Steps
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.image.square import Decode, Square
from llavakit.model.build import grow_tokenizer
from llavakit.model.encode import Codec
from llavakit.model.preprocessor import preprocessor_config
from llavakit.train.backbones_language import train_tokenizer

BATCH = 16
PICTURES = 16
ANSWER = "The image shows a man on a skateboard doing a trick in the air, high above the ground of a park. "


def record(number: int) -> dict[str, Any]:
    """About 1,200 characters, as the records of the 665K mix have on average; four questions about a picture."""
    turns = []
    for question in range(4):
        mark = "<image>\n" if question == 0 else ""
        turns.append({"from": "human", "value": f"{mark}What is thing {question} of {number} in the picture?"})
        turns.append({"from": "gpt", "value": ANSWER * (1 + (number + question) % 3)})
    return {"id": f"r{number}", "image": f"{number % PICTURES}.jpg", "conversations": turns}


def write(folder: Path, count: int) -> Path:
    path = folder / f"{count}.json"
    with open(path, "w") as file:
        for number in range(count):
            file.write(("[" if number == 0 else ",\n") + json.dumps(record(number)))
        file.write("]")
    return path


def peak() -> float:
    """Most memory that this process has held, MiB. (Not getrusage: that remembers the parent's from before exec.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def start_ours(path: Path) -> tuple[float, float]:
    """Seconds until the first epoch's order is known and its first record read, and memory."""
    begin = time.process_time()
    mixture = Mixture.of({"all": SourceSpec(path=str(path))}, image_first=True)
    mixture.at(*(int(n) for n in mixture.order(0)[0]))
    return time.process_time() - begin, peak()


def start_theirs(path: Path) -> tuple[float, float]:
    begin = time.process_time()
    records = json.load(open(path))  # noqa: SIM115 (as there)
    assert records[0]
    return time.process_time() - begin, peak()


def apart(work: Callable[[Path], tuple[float, float]], path: Path) -> tuple[float, float]:
    """In a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, path).result()


def starts(folder: Path, counts: list[int]) -> None:
    print(f"{'records':>9} {'MB':>6} {'way':>8} {'start':>8} {'memory':>10}")
    for count in counts:
        path = write(folder, count)
        for name, work in (("original", start_theirs), ("first", start_ours), ("again", start_ours)):
            seconds, memory = apart(work, path)
            size = path.stat().st_size / 1e6
            print(f"{count:>9,} {size:>6,.0f} {name:>8} {seconds:>6.2f} s {memory:>6,.0f} MiB", flush=True)
        path.unlink()


def theirs(path: Path, tokenizer: Any, square: Square) -> Iterator[dict[str, torch.Tensor]]:
    """Batches as the original makes them, of the file's records in order."""
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    config = preprocessor_config(square)
    config.pop("image_processor_type")
    processor = LlavaImageProcessorPil(**config)
    records = json.loads(path.read_text())
    for first in range(0, len(records), BATCH):
        batch = []
        for item in records[first : first + BATCH]:
            image = Image.open(path.parent / item["image"]).convert("RGB")
            pixels = processor(image, return_tensors="pt")["pixel_values"][0]
            said = [f"{turn['from']}: {turn['value']}" for turn in item["conversations"]]
            ids = torch.tensor(tokenizer("".join(said), add_special_tokens=False).input_ids)
            labels = ids.clone()
            for place in range(0, len(said), 2):
                tokenizer(said[place] + said[place + 1])
                tokenizer(said[place])
            batch.append((ids, labels, pixels))
        pad = torch.nn.utils.rnn.pad_sequence
        yield {
            "input_ids": pad([ids for ids, _, _ in batch], batch_first=True),
            "labels": pad([labels for _, labels, _ in batch], batch_first=True, padding_value=-100),
            "images": torch.stack([pixels for _, _, pixels in batch]),
        }


def rates(folder: Path, samples: int) -> None:
    for number in range(PICTURES):
        (folder / f"{number}.jpg").write_bytes(encoded(640, 480, None))
    path = write(folder, samples)
    tokenizer = train_tokenizer([ANSWER, "What is thing 0123456789 of in the picture?"] * 5, 400)
    grow_tokenizer(tokenizer)

    def ours(decode: Decode) -> Steps:
        codec = Codec(tokenizer, get_template("vicuna_v1"), Square(size=336, decode=decode), 576)
        mixture = Mixture.of({"all": SourceSpec(path=str(path))}, image_first=True)
        return Steps(mixture, codec, BATCH, row_tokens=4096, epochs=1, on_bad="stop")

    ways: dict[str, Callable[[], Any]] = {
        "original": lambda: list(theirs(path, tokenizer, Square(size=336))),
        "exact": lambda: list(ours("exact").read()),
        "fast": lambda: list(ours("fast").read()),
    }
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(3):
        for name, way in ways.items():
            begin = time.process_time()
            way()
            least[name] = min(least[name], time.process_time() - begin)
    print(f"\n{'way':>8} {'samples/s':>10} {'ratio':>6}   (640x480 pictures, one core)")
    for name, seconds in least.items():
        print(f"{name:>8} {samples / seconds:>10.1f} {least['original'] / seconds:>6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="10000,100000,1000000")
    parser.add_argument("--samples", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        starts(Path(folder), [int(count) for count in args.records.split(",")])
        rates(Path(folder), args.samples)


if __name__ == "__main__":
    main()

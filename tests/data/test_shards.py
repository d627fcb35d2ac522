"""Shards: the same steps as from files, readable by webdataset, and clear about what is damaged."""

from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset

from llavakit.base.errors import BadRecord, BadRequest, WorkFailed
from llavakit.cli import main
from llavakit.data.loader import Steps
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.data.shards import ShardSource
from llavakit.data.sources.llava import LlavaSource
from llavakit.data.tars import check_shards, write_shards
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import Codec
from tests.data.samples import records
from tests.data.test_loader import equal


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> Codec:
    return checkpoints.load(checkpoint)[1]


def data(folder: Path) -> Path:
    """Eleven records; the last is about twelve pictures, more than one digit can count."""
    made = records(11, folder)
    made[10] |= {"image": ["0.png", "1.png", "2.png", *["4.png"] * 9]}
    made[10]["conversations"][0]["value"] = "<image>" * 12 + "Which?"
    path = folder / "data.json"
    path.write_text(json.dumps(made))
    return path


def shards(folder: Path, each: int = 4) -> Path:
    write_shards(LlavaSource(data(folder)), folder / "shards", each)
    return folder / "shards"


def steps(spec: dict[str, object], codec: Codec, skip: bool = False) -> Steps:
    mixture = Mixture.of({"all": SourceSpec.parse(spec)}, image_first=True, seed=3)
    return Steps(mixture, codec, batch_size=4, row_tokens=400, epochs=2, on_bad="skip" if skip else "stop")


def test_a_step_from_shards_is_the_step_from_files(tmp_path: Path, codec: Codec) -> None:
    folder = shards(tmp_path)
    assert sorted(p.name for p in folder.glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    spec = {"weight": 1.5, "keep": {"without": "And 7"}, "cap": 9}
    plain = list(steps({"path": str(tmp_path / "data.json"), **spec}, codec).read())
    assert sum(step.samples for step in plain) == 28
    for start, workers in ((0, 0), (3, 0), (2, 2)):
        read = list(steps({"path": str(folder), **spec}, codec).read(start, workers))
        assert all(equal(a, b) for a, b in zip(plain[start:], read, strict=True))


def test_a_store_is_read_as_a_folder_is(tmp_path: Path) -> None:
    folder, store = shards(tmp_path), fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/mix", recursive=True)
    near, far = ShardSource(str(folder)), ShardSource("memory://bucket/mix")
    assert len(near) == len(far) == 11
    for i in (10, 0, 3):
        assert near[i].turns == far[i].turns and near[i].images == far[i].images
    assert [ref.source for ref in far[10].images][:2] == [(tmp_path / f"{n}.png").read_bytes() for n in (0, 1)]
    store.rm("/bucket/mix/000001.tar.idx")
    with pytest.raises(BadRequest, match=r"no 000001\.tar\.idx in memory://bucket/mix"):
        ShardSource("memory://bucket/mix")
    with pytest.raises(BadRequest, match="nosuch"):
        ShardSource("nosuch://bucket/mix")


class Ranged(http.server.SimpleHTTPRequestHandler):
    """What an object store does: parts of files."""

    def do_GET(self) -> None:
        path = Path(self.directory) / self.path.lstrip("/")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file():
            return self.send_error(404)
        content = path.read_bytes()
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def test_workers_read_from_a_store_over_http(tmp_path: Path, codec: Codec) -> None:
    pytest.importorskip("aiohttp")
    folder = shards(tmp_path)
    handler = functools.partial(Ranged, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/shards"
        near, far = steps({"path": str(folder)}, codec), steps({"path": url}, codec)
        first, *rest = near.read()
        assert equal(first, far[0]), "read here, before the workers are forked"
        read = list(far.read(1, workers=2))
        assert len(rest) == len(read) and all(equal(a, b) for a, b in zip(rest, read, strict=True))
        server.shutdown()
    with pytest.raises(WorkFailed, match=r"shards/00000\d\.tar cannot be read"):
        far[0]


def test_webdataset_reads_ours_and_we_read_its_own(tmp_path: Path) -> None:
    folder = shards(tmp_path)
    read = list(webdataset.WebDataset([str(p) for p in sorted(folder.glob("*.tar"))], shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [f"{n:09d}" for n in range(11)]
    source = LlavaSource(tmp_path / "data.json")
    assert [json.loads(sample["json"]) for sample in read] == list(source.records)
    assert read[2]["png"] == (tmp_path / "2.png").read_bytes() and sum("png" in name for name in read[10]) == 12
    (tmp_path / "theirs").mkdir()
    with webdataset.TarWriter(str(tmp_path / "theirs" / "a.tar")) as writer:
        for sample in read:
            writer.write({key: value for key, value in sample.items() if key in ("__key__", "json") or "png" in key})
    theirs, ours = ShardSource(str(tmp_path / "theirs")), ShardSource(str(folder))
    assert [theirs[i].images for i in range(11)] == [ours[i].images for i in range(11)]


def test_the_same_records_make_the_same_bytes(tmp_path: Path) -> None:
    folder = shards(tmp_path)
    write_shards(LlavaSource(tmp_path / "data.json"), tmp_path / "again", 4)
    assert [p.read_bytes() for p in sorted(folder.iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "again").iterdir())
    ]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_damage_is_named_by_shard_and_key(tmp_path: Path, codec: Codec) -> None:
    folder = shards(tmp_path)
    places = np.fromfile(folder / "000001.tar.idx", dtype=np.uint64).astype(int)
    flip(folder / "000001.tar", places[0] + 10)  # the name in a header
    content = (folder / "000001.tar").read_bytes()
    flip(folder / "000001.tar", content.index(b"\x89PNG", places[1]) + 44)
    source = ShardSource(str(folder))
    with pytest.raises(BadRecord, match=r"shards/000001\.tar sample 0: is damaged \(.*\); copy or write this shard"):
        source[4]
    assert len(steps({"path": str(folder), "keep": {"pictured": True}}, codec).mixture) == 9, (
        "the reader refuses, not keep"
    )
    bad = "\n".join(b for step in steps({"path": str(folder)}, codec, skip=True).read() for b in step.bad)
    assert bad.count("sample 0") == 2 and bad.count("000001.tar key '000000005' id 'r5': image: cannot be read") == 2
    assert check_shards(folder) == [f"{folder / '000001.tar'}: its bytes are not those that were written"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "000002.tar").write_bytes(b"x" * 700), r"000002\.tar has 700 bytes, and its index"),
        (lambda folder: (folder / "000002.tar").unlink(), r"no file at .*000002\.tar, which shards\.json names"),
        (lambda folder: (folder / "000000.tar.idx").write_bytes(b"x" * 9), r"000000\.tar\.idx is damaged"),
        (lambda folder: (folder / "shards.json").write_text("{}"), r"shards\.json is not a list of shards"),
        (lambda folder: [p.unlink() for p in folder.iterdir()], r"no shards \(\*\.tar\) in"),
    ],
)
def test_a_broken_folder_is_refused_at_once(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    folder = shards(tmp_path)
    spoil(folder)
    with pytest.raises(BadRequest, match=said):
        ShardSource(str(folder))


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = data(tmp_path), tmp_path / "shards"
    (tmp_path / "5.png").unlink()
    command = ["data", "shard", str(path), "--out", str(out), "--samples", "5"]
    assert main(command) == 1
    assert "data.json record 5: image" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.glob(".*")), "whole or absent"
    assert main([*command, "--on-bad", "skip"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}: 10 of 11 records in 2 shards\n" and "1 left out: image" in said.err
    assert main(command) == 2 and "is not empty" in capsys.readouterr().err
    assert main(["data", "shard", str(out), "--check"]) == 0
    flip(out / "000000.tar", 1000)
    assert main(["data", "shard", str(out), "--check"]) == 1
    with pytest.raises(BadRequest, match="hold their images"):
        Mixture.of({"a": SourceSpec(path=str(out), images="x")}, image_first=True)

"""Steps: the same tensors whoever prepares them; bad records stop the run or are counted and named."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llavakit.base.errors import BadRecord, WorkFailed
from llavakit.data.collate import collate
from llavakit.data.loader import OnBad, Step, Steps
from llavakit.data.mixture import Mixture, SourceSpec
from llavakit.model import checkpoint as checkpoints
from llavakit.model.encode import Codec, encode
from tests.data.samples import write


@pytest.fixture(scope="module")
def codec(checkpoint: Path) -> Codec:
    return checkpoints.load(checkpoint)[1]


def steps(path: Path, codec: Codec, on_bad: OnBad = "stop", epochs: float = 2, batch_size: int = 5) -> Steps:
    mixture = Mixture.of({"all": SourceSpec(path=str(path))}, image_first=True, seed=3)
    return Steps(mixture, codec, batch_size, row_tokens=400, epochs=epochs, on_bad=on_bad)


def equal(one: Step, other: Step) -> bool:
    same = {name: value for name, value in vars(one).items() if name != "rows"}
    if same != {name: value for name, value in vars(other).items() if name != "rows"}:
        return False
    for mine, theirs in zip(one.rows, other.rows, strict=True):
        for name, value in vars(mine).items():
            match = getattr(theirs, name)
            if not (torch.equal(value, match) if torch.is_tensor(value) else value == match):
                return False
    return True


def test_a_step_does_not_depend_on_workers_or_history(tmp_path: Path, codec: Codec) -> None:
    path = write(tmp_path, 12)
    alone = list(steps(path, codec).read())
    assert [step.number for step in alone] == list(range(6)) and [step.samples for step in alone] == [5, 5, 2] * 2
    assert any(len(step.rows) > 1 for step in alone)
    helped = list(steps(path, codec).read(workers=2))
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))
    later = list(steps(path, codec).read(start=4))
    assert all(equal(a, b) for a, b in zip(alone[4:], later, strict=True))
    assert not equal(alone[0], alone[3]), "the second epoch has another order"


def spoilt(folder: Path) -> Path:
    """Six records: picture 0 is cut short, picture 1 is gone, record 3 says nothing."""
    path = write(folder, 6)
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "1.png").unlink()
    made = json.loads(path.read_text())
    made[3]["conversations"] = []
    path.write_text(json.dumps(made))
    return path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_record_stops_the_run_by_name(tmp_path: Path, codec: Codec, workers: int) -> None:
    with pytest.raises(BadRecord, match=r"^\S+data\.json record \d id 'r\d'") as raised:
        list(steps(spoilt(tmp_path), codec).read(workers=workers))
    assert "\n" not in str(raised.value), "one line, whichever process met it"


def test_bad_records_are_skipped_and_named(tmp_path: Path, codec: Codec) -> None:
    (step,) = steps(spoilt(tmp_path), codec, "skip", epochs=1, batch_size=6).read()
    assert step.samples == 3 and len(step.bad) == 3
    truncated, missing, empty = sorted(step.bad)
    assert "record 0 id 'r0'" in truncated and "0.png: cannot be read" in truncated
    assert "record 1 id 'r1'" in missing and "1.png: no such file" in missing
    assert "record 3 id 'r3'" in empty and "has no turns" in empty


def test_a_step_without_one_good_record_fails(tmp_path: Path, codec: Codec) -> None:
    path = write(tmp_path, 3)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    with pytest.raises(WorkFailed, match=r"step 0 has no usable record; the first is bad: .*no such file"):
        list(steps(path, codec, "skip").read())


def test_a_packed_row_puts_everything_where_it_belongs(tmp_path: Path, codec: Codec) -> None:
    mixture = Mixture.of({"all": SourceSpec(path=str(write(tmp_path, 5)))}, image_first=True)
    examples = [encode(mixture.at(0, index), codec) for index in range(5)]
    row = collate(examples, codec.image_id)
    assert row.segments == [len(example) for example in examples] and sum(row.segments) == len(row.ids)
    assert row.positions.tolist() == [i for example in examples for i in range(len(example))]
    assert row.image_at.tolist() == (row.ids == codec.image_id).nonzero().flatten().tolist()
    assert row.pixels is not None and len(row.image_at) == codec.image_tokens * len(row.pixels) == 16 * 4
    assert torch.equal(row.ids[row.predict + 1], row.targets)
    assert len(row.targets) == sum(example.supervised for example in examples)
    alone = collate([examples[3]], codec.image_id)
    assert alone.pixels is None and len(alone.image_at) == 0


DEAD = """
import multiprocessing, os, signal, sys
from llavakit.base.errors import WorkFailed
from llavakit.data.loader import workers_alive
from llavakit.model.checkpoint import load_description
from tests.data.test_loader import Path, steps
import torch
codec = load_description(Path(sys.argv[1]), torch.float32, "meta")[1]
try:
    with workers_alive():
        for step in steps(Path(sys.argv[2]), codec, batch_size=1).read(workers=1):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGTERM)
                worker.kill() if step.number == 3 else None
except WorkFailed as error:
    print(step.number, error)
"""


def test_a_worker_outlives_sigterm_and_its_death_is_one_clear_error(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEAD, str(checkpoint), str(write(tmp_path, 60))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    found = re.match(r"(\d+) a process that prepares data died: DataLoader worker", done.stdout)
    assert found and 3 <= int(found[1]) < 50, done


def test_shares_of_a_step_are_the_step(tmp_path: Path, codec: Codec) -> None:
    whole = steps(write(tmp_path, 7), codec)
    for number in range(len(whole)):
        shares = []
        for rank in range(3):
            part = steps(tmp_path / "data.json", codec)
            part.share = (rank, 3)
            shares.append(part[number])
        for key in ("samples", "tokens", "supervised"):
            assert sum(getattr(share, key) for share in shares) == getattr(whole[number], key)

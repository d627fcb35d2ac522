"""The model card says what the checkpoint says; the hub holds the files as they are, and gives them back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from llavakit.cli import main
from llavakit.convert.card import add_scores, card
from llavakit.engine.load import load
from llavakit.engine.sample import Decoding
from llavakit.recipes import resolve
from tests.convert.hub import TOKEN, hub

RESULT = {
    "benchmark": "pope", "protocol": "official", "score": 0.8614, "unit": "fraction", "metrics": {"strict": 0.86},
    "count": 8910, "missing": 3, "duplicates": 0, "unparsed": 0,
}  # fmt: skip


@pytest.fixture()
def trained(checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that says what LLaVA-1.5's training would have left in it."""
    path = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    recipe = resolve("llava15-7b", ["stages.tune.data.mix_665k.path=/home/somebody/mix.json"])
    facts = {"llavakit": 1, "recipe": recipe.plain(), "recipe_hash": recipe.hash(), "versions": {"torch": "2.13.0"}}
    (path / "llavakit.json").write_text(json.dumps(facts))
    return path


def test_facts_come_from_the_checkpoint(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "scores" / "pope").mkdir(parents=True)
    (tmp_path / "scores" / "pope" / "result.json").write_text(json.dumps({**RESULT, "score": 0.5}))
    add_scores(trained, tmp_path / "scores")
    (tmp_path / "scores" / "pope" / "result.json").write_text(json.dumps(RESULT))
    add_scores(trained, tmp_path / "scores")
    text = card(trained, "me/mine", "llama2")
    _, head, body = text.split("---\n", 2)
    data = yaml.safe_load(head)
    assert data["base_model"] == ["openai/clip-vit-large-patch14-336", "lmsys/vicuna-7b-v1.5"]
    assert data["license"] == "llama2" and data["library_name"] == "transformers"
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.8614
    assert "| pope | official | 0.8614 fraction | 8,910 | 3 missing |" in body and "0.5" not in body
    facts = json.loads((trained / "llavakit.json").read_text())
    assert (
        facts["recipe_hash"] in body
        and "| tune | connector 2e-05, language_model 2e-05 | mix_665k (`mix.json`)" in body
    )
    assert "somebody" not in body
    weights = sum(tensor.numel() for tensor in load_file(trained / "model.safetensors").values())
    assert f"{weights:,} parameters" in body and "`clip_vision_model`, 3 layers of 32, patches of 7 pixels" in body
    assert body.count("\n### ") == 4 and "vllm serve me/mine --max-model-len 512" in body


def test_the_cards_python_runs(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = re.search(r"```python\n(.*?)```", card(checkpoint, "me/mine"), re.DOTALL)
    assert code is not None
    Image.effect_noise((40, 30), 90).convert("RGB").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(code[1].replace("me/mine", str(checkpoint)).replace("=256", "=8"), {})
    ours = load(checkpoint).ask("photo.jpg", "What is in this picture?", Decoding(max_new_tokens=8))
    assert capsys.readouterr().out.strip() == ours.strip() and ours.strip()


# In one process, since the address of the hub is read when its package is imported.
SESSION = """
import contextlib, io, json, os, sys
from pathlib import Path
from llavakit.cli import main
path, said = sys.argv[1], []
def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    said.append((code, out.getvalue().strip(), err.getvalue().strip()))
run("convert", path, "--push", "me/mine", "--license", "mit")
run("ask", "me/mine", "Say yes.", "--max-new-tokens", "6")
(Path(path) / "README.md").write_text("# Mine")
run("convert", path, "--push", "me/mine")
os.environ["HF_TOKEN"] = "hf_wrong"
run("convert", path, "--push", "me/mine")
print(json.dumps(said))
"""


def test_pushed_and_pulled_back(trained: Path, tmp_path: Path) -> None:
    (trained / "notes.txt").write_text("for nobody")
    local = {file.name: file.read_bytes() for file in trained.iterdir() if file.name != "notes.txt"}
    described = card(trained, "me/mine", "mit")
    answer = load(trained).ask(None, "Say yes.", Decoding(max_new_tokens=6)).strip()
    with hub() as here:
        environment = {
            **os.environ, "HF_ENDPOINT": here.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home"),
        }  # fmt: skip
        session = [sys.executable, "-c", SESSION, str(trained)]
        done = subprocess.run(session, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        pushed, asked, again, refused = json.loads(done.stdout)
    assert pushed[0] == 0 and pushed[1].startswith(f"{here.address}/me/mine/commit/"), pushed
    assert "no part of a checkpoint: notes.txt" in pushed[2]
    assert asked[:2] == [0, answer]
    assert again[0] == 0
    remote = dict(here.repositories["me/mine"])
    assert here.replaced == {"README.md": described.encode()} and remote.pop("README.md") == b"# Mine"
    about, here_about = (json.loads(files.pop("llavakit.json")) for files in (remote, local))
    assert about != here_about
    assert about == json.loads(json.dumps(here_about).replace("/home/somebody/mix.json", "mix.json"))
    assert remote == local and len(here.verified) == 1 and len(here.commits) == 2
    assert refused[0] == 2 and "set HF_TOKEN to one" in refused[2].splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--card"], "README.md is there already"),
        ([], "name the new directory"),
        (["--push", "me/mine", "--to", "gguf"], "for native checkpoints"),
        (["--push", "me/../mine"], "no name of a repository"),
        (["--card", "--scores", "nowhere"], "no result.json"),
    ],
)
def test_a_wrong_request_is_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (trained / "README.md").touch()
    assert main(["convert", str(trained), *words]) == 2
    assert message in capsys.readouterr().err

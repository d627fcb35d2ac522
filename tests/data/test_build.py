"""Building a mixture: the same bytes always, counts beside the published ones, missing sources by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llavakit import cli
from llavakit.base.errors import BadRequest
from llavakit.data.blend import MIXES, Blend, Ingredient, resolve
from llavakit.data.build import Built, build
from llavakit.data.mixture import Mixture, SourceSpec
from tests.data import raw

MIX = resolve("llava15-mix")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw.whole_mix(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def built(root: Path) -> Built:
    return build(MIX, root, root / "built", seed=1)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_mix_has_all_ten_sources_and_trains(built: Built, root: Path) -> None:
    counts = {name: made["records"] for name, made in built.sources.items()}
    assert counts == {
        "llava_instruct": 3,
        "sharegpt": 2,
        "vqav2": 2,
        "gqa": 2,
        "okvqa": 2,
        "ocr_vqa": 5,
        "aokvqa": 4,
        "textcaps": 1,
        "refcoco": 2,
        "visual_genome": 1,
    }
    mixture = Mixture.of({"mix": SourceSpec(path=str(built.path), images=str(root))}, image_first=True)
    assert len(mixture) == built.records == 24
    found = [mixture.at(0, n) for n in range(24)]
    assert found[0].images[0].source == root / "coco/train2017/000000000033.jpg"
    assert all(conversation.answered for conversation in found)


def test_bytes_depend_on_inputs_and_seed_alone(built: Built, root: Path, tmp_path: Path) -> None:
    again = build(MIX, root, tmp_path / "again", seed=1, workers=3)
    other = build(MIX, root, tmp_path / "other", seed=2)
    name = "llava15-mix.provenance.json"
    assert again.path.read_bytes() == built.path.read_bytes() != other.path.read_bytes()
    assert (again.path.parent / name).read_bytes() == (built.path.parent / name).read_bytes()


def test_provenance_has_a_line_for_every_rule_and_every_input(built: Built) -> None:
    provenance = json.loads((built.path.parent / "llava15-mix.provenance.json").read_text())
    names = {name: [line["rule"] for line in made["rules"]] for name, made in provenance["sources"].items()}
    assert names["aokvqa"] == ["read", "rotated-choices", "merged-by-image", "format-prompt", "image-folder"]
    assert names["ocr_vqa"] == ["read", "sampled", "format-prompt", "image-folder"]
    assert names["refcoco"][1:4] == ["padded-square-boxes", "region-questions", "short-pieces"]
    assert names["visual_genome"][1] == "limited-regions"
    assert provenance["sources"]["ocr_vqa"]["rules"][0]["dropped"] == {"not of the training split": 1}
    inputs = [item["file"] for item in provenance["sources"]["refcoco"]["inputs"]]
    assert inputs[:2] == ["refcoco_all/refcoco/refs(unc).p", "refcoco_all/refcoco/instances.json"]
    assert provenance["mixture_hash"] == MIX.hash() and provenance["output"]["records"] == 24


def test_the_table_explains_differences(built: Built) -> None:
    text = built.text()
    assert "665,298" in text and "-82,781" in text
    assert "aokvqa: four rotations" in text and "Here: read 2, rotated-choices 8, merged-by-image 4" in text


def test_missing_sources_are_listed_with_where_to_get_them(tmp_path: Path) -> None:
    raw.vqa(tmp_path)
    with pytest.raises(BadRequest, match=r"9 of 10 sources(.|\n)*textcaps: no TextCaps(.|\n)*from https://textvqa.org"):
        build(MIX, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    made = build(MIX, tmp_path, tmp_path / "out", allow_missing=True)
    assert made.records == 2 and made.sources["gqa"]["why"] == "missing"
    with pytest.raises(BadRequest, match="none of the sources"):
        build(resolve("scienceqa"), tmp_path, tmp_path / "out", allow_missing=True)


def test_a_new_mixture_is_ten_lines(root: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\n"
        "sources:\n"
        "  vqav2: {weight: 2, options: {prompt_each: true}}\n"
        "  covers: {kind: ocr_vqa, cap: 3, options: {sample: 4}}\n"
        "  gqa: {keep: {text: Tree}}\n"
    )
    made = build(resolve(str(recipe)), root, tmp_path / "out")
    assert {name: found["records"] for name, found in made.sources.items()} == {"vqav2": 4, "covers": 3, "gqa": 1}
    found = records(made.path)
    assert found[0] == found[2] and found[0]["conversations"][2]["value"].endswith("single word or phrase.")
    assert {record["source"] for record in found} == {"vqav2", "covers", "gqa"}


def test_wrong_mixtures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="did you mean 'llava15_mix'"):
        resolve("llava15_mixx")
    blend = Blend(name="x", sources={"gqa": Ingredient(options={"foldr": "a"})})
    with pytest.raises(BadRequest, match=r"options of gqa: foldr: unknown key \(did you mean 'folder'"):
        build(blend, tmp_path, tmp_path / "out")
    raw.put(tmp_path / "train_balanced_questions.json", {"1": {"question": "x"}})
    with pytest.raises(BadRequest, match=r"gqa: a record in .* has not the official form \(KeyError\('imageId'\)\)"):
        build(resolve("llava15-mix"), tmp_path, tmp_path / "out", allow_missing=True)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", MIXES.names())
def test_every_shipped_mixture_is_sound(name: str) -> None:
    for source in MIXES[name].sources:
        reader, options = MIXES[name].reader(source)
        assert reader.get and reader.missing(Path("/nowhere"), options)


def test_the_verb(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "build", "llava15-mix", "--root", str(root), "--out", str(tmp_path), "--seed", "1"]
    assert cli.main(argv) == 0
    assert "published" in capsys.readouterr().out
    assert cli.main([*argv, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 24
    assert cli.main(["data"]) == 2


def test_real_vqav2_questions(shared: Path, tmp_path: Path) -> None:
    made = build(MIX, shared / "vqav2_sample", tmp_path, allow_missing=True)
    asked = [r for r in records(made.path) if r["id"] == "000000000446"]
    assert made.sources["vqav2"]["records"] == 48
    assert asked[0]["conversations"][1] == {"from": "gpt", "value": "Yes"}

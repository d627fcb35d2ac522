"""GQA's further metrics, on questions small enough to count by hand."""

from typing import Any

import pytest

from llavakit.base.errors import BadRequest
from llavakit.eval.gqa import in_order
from llavakit.eval.run import score
from llavakit.eval.tasks.gqa import Gqa

from .conftest import Put


def item(answer: str, **more: Any) -> dict[str, Any]:
    types = {"structural": "query", "semantic": "attr", "detailed": "color"}
    plain = {"imageId": "n1", "question": "What colour is it?", "answer": answer, "isBalanced": True, "types": types,
             "groups": {"global": "color", "local": "x"}, "entailed": [], "equivalent": [],
             "semantic": [{"operation": "select", "argument": "cup (1)"},
                          {"operation": "query", "argument": "name"}]}  # fmt: skip
    return plain | more


ITEMS = {
    "1": item("red", entailed=["1", "5", "6"]),
    "2": item("red", groups={"global": None, "local": "x"}, entailed=["5"]),
    "3": item("blue"),
    "4": item("wood", types={"structural": "query", "semantic": "attr", "detailed": "twoCommon"}),
    "5": item("yes", isBalanced=False, types={"structural": "verify", "semantic": "attr", "detailed": "x"}),
    "6": item("no", isBalanced=False),
    "7": item("no", isBalanced=False),  # follows from no balanced question
}
CHOICES = {id: {"valid": ["red", "blue"], "plausible": ["blue"]} for id in ITEMS}
SAID = {"1": "Red.", "2": "green", "3": "red", "4": "Material", "5": "yes", "6": "yes", "7": "no"}


def metrics(put: Put, protocol: str) -> dict[str, float]:
    asked = ITEMS if protocol == "consistency" else {id: ITEMS[id] for id in "1234"}
    path = put(f"val_{'all' if protocol == 'consistency' else 'balanced'}_questions.json", asked)
    questions = Gqa(protocol).load(path.parent)
    result = score(Gqa(protocol), questions, [{"question_id": q.id, "text": SAID[q.id]} for q in questions])
    assert result.count == len(questions) == (6 if protocol == "consistency" else 4)
    assert (result.score, result.metrics["open"]) == (25.0, 25.0)
    return result.metrics


def test_validity_plausibility_and_kinds(put: Put) -> None:
    put("val_choices.json", CHOICES)
    found = metrics(put, "official")
    # "material" is what a question after something in common may be answered with, whatever the file says.
    assert (found["validity"], found["plausibility"]) == (75.0, 25.0)
    assert (found["structural query"], found["semantic attr"], found["words 4"]) == (25.0, 25.0, 25.0)
    assert found["steps 1"] == 25.0, "asking for a name is no step of reasoning"
    assert "consistency" not in found


def test_kinds_are_told_in_order() -> None:
    kinds = ["words 10", "words 9", "structural query", "steps 2"]
    assert sorted(kinds, key=in_order) == ["steps 2", "structural query", "words 9", "words 10"]


def test_distribution_is_a_chi_square_of_each_group(put: Put) -> None:
    # Group "color": red, blue and wood are true once each; said were red twice and what is never true once.
    assert metrics(put, "official")["distribution (0 is best)"] == pytest.approx((1 + 1 + 1) / 100)


def test_consistency_is_that_of_the_questions_that_follow_from_a_right_answer(put: Put) -> None:
    # Only the first is right; of the two that follow from it, one.
    assert metrics(put, "consistency")["consistency"] == 50.0
    put("val_all_questions.json", {id: ITEMS[id] for id in "123"})
    with pytest.raises(BadRequest, match="entails '5'"):
        Gqa("consistency").load(put("x").parent)


def test_without_choices_there_is_no_validity(put: Put) -> None:
    assert not {"validity", "plausibility"} & metrics(put, "official").keys()

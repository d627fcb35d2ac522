"""GQA's further official metrics (arXiv:1902.09506), as its ``eval.py`` counts them, each in percent.

- validity, plausibility: the answer is one that such a question can have, or that makes sense in the world (needs the
  split's ``*_choices.json``);
- consistency: of the questions that follow from one rightly answered, the share that is right too (needs answers to
  the unbalanced questions);
- distribution: how far the answers of a group of questions are from the true ones in their frequencies (chi-square,
  a hundredth of it; 0 is best);
- accuracy by structural and semantic type, by number of reasoning steps and of words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llavakit.eval.benchmark import Judged, mean

# Steps that do not make a question harder.
_NO_STEPS = ("exist", "query: name", "choose name")
# What a question after something in common of two things is about.
_COMMON = ("color", "material", "shape")


def about(item: Mapping[str, Any], choices: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the metrics need of a record of the questions' file, beside the answer; of a file that has it."""
    types = item.get("types") or {}
    known: dict[str, Any] = {"kinds": list(_kinds(item, types)), "group": (item.get("groups") or {}).get("global")}
    known["balanced"] = item.get("isBalanced", True)
    known["entailed"] = [id for id in item.get("entailed") or () if id != item.get("id")]
    if choices is not None:
        common = "Common" in (types.get("detailed") or "")
        known |= {name: _COMMON if common else choices[name] for name in ("valid", "plausible")}
    return known


def further(judged: Judged) -> dict[str, float]:
    """The metrics that the questions' files allow."""
    balanced = [(q, v) for q, v in judged if q.truth["balanced"]]
    metrics: dict[str, float] = {}
    for name, key in (("validity", "valid"), ("plausibility", "plausible")):
        if balanced and all(key in q.truth for q, _ in balanced):
            metrics[name] = 100.0 * mean(v.parsed in q.truth[key] for q, v in balanced)
    scores = {q.id: v.score for q, v in judged}
    if len(balanced) < len(judged):
        metrics["consistency"] = 100.0 * _consistency(
            [q.truth["entailed"] for q, v in balanced if v.score and q.truth["entailed"]], scores
        )
    pairs = [(q.truth["group"], q.truth["answer"], v.parsed) for q, v in balanced if q.truth["group"] is not None]
    if pairs:
        metrics["distribution (0 is best)"] = _distance(pairs)
    for kind in sorted({kind for q, _ in balanced for kind in q.truth["kinds"]}, key=in_order):
        metrics[kind] = 100.0 * mean(v.score for q, v in balanced if kind in q.truth["kinds"])
    return metrics


def _kinds(item: Mapping[str, Any], types: Mapping[str, Any]) -> list[str]:
    kinds = [f"{name} {types[name]}" for name in ("structural", "semantic") if types.get(name)]
    if isinstance(item.get("semantic"), list):
        steps = [f"{step['operation']}: {step['argument']}" for step in item["semantic"]]
        kinds.append(f"steps {sum(not any(word in step for word in _NO_STEPS) for step in steps)}")
    return [*kinds, f"words {len(item['question'].split())}"]


def in_order(kind: str) -> tuple[str, int, str]:
    """By name, then by number: "words 9" before "words 10"."""
    name, _, rest = kind.partition(" ")
    return name, int(rest) if rest.isdigit() else 0, rest


def _consistency(inferred: Sequence[Sequence[str]], scores: Mapping[str, float]) -> float:
    return mean(mean(scores[id] for id in ids) for ids in inferred)


def _distance(pairs: Sequence[tuple[str, str, str]]) -> float:
    """The mean over groups, by their size, of the chi-square of said against true answers; what is never true in a
    group does not count."""
    meant: dict[str, Counter[str]] = {}
    said: dict[str, Counter[str]] = {}
    for group, truth, answer in pairs:
        meant.setdefault(group, Counter())[truth] += 1
        said.setdefault(group, Counter())[answer] += 1
    total = 0.0
    for group, truths in meant.items():
        total += truths.total() * sum((said[group][answer] - count) ** 2 / count for answer, count in truths.items())
    return total / len(pairs) / 100.0

"""Words for the language model: conversations about scenes that are told, never drawn.

It learns the world's language from them, and to look things up in what stands before: first from :func:`lookup`, short
questions about one scene, and from :func:`small_talk`, whose words are to be copied; when it can, also from
:func:`lists`, everything in a scene, and :func:`chat`, all that is asked. (The other way round long answers drown the
short ones, and look-up does not form.) A scene is told as the regions of a picture. These scenes (split "words") are
free to name held-out combinations, which no picture in training shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llavakit.world.ask.exchange import Dialogue
from llavakit.world.ask.facts import draw_facts
from llavakit.world.ask.phrase import pick
from llavakit.world.ask.table import ALL_PAIRS, CAPTION, INGREDIENTS, REGIONS, Ingredient
from llavakit.world.ask.talk import talk
from llavakit.world.sample import rng_of, sample_scene

_KINDS = (CAPTION, *INGREDIENTS.values())
_LISTS = (CAPTION, INGREDIENTS["detail"], INGREDIENTS["textcaps"])
_LOOKUPS = 5  # few: what was answered before is an easier place to look than the picture
# That something is not there is learnt late, and only where it is asked often; how many there are, not at all so soon.
_LOOKED_UP = ("color", "shape", "size", "pattern", "place", "presence", "presence", "presence")


def lookup(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of short questions, a record of LLaVA's JSON format."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "lookup")
    facts = draw_facts(scene, rng, ALL_PAIRS, _LOOKUPS, _LOOKED_UP)
    dialogue = [fact.exchange().short() for fact in facts]
    return _record(f"lookup-{index:05d}", index, dialogue)


def small_talk(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` without a picture, a record of LLaVA's JSON format."""
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, "talk")
    (dialogue,) = talk(scene, rng, ALL_PAIRS)
    return _record(f"talk-{index:05d}", None, dialogue)


def lists(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` in which all that a scene shows is named, a record of LLaVA's JSON format."""
    return _asked(seed, index, "lists", _LISTS)


def chat(seed: int, index: int) -> dict[str, Any]:
    """Conversation ``index`` of any kind, a record of LLaVA's JSON format."""
    return _asked(seed, index, "chat", _KINDS)


def _asked(seed: int, index: int, name: str, kinds: Sequence[Ingredient]) -> dict[str, Any]:
    scene, rng = sample_scene(seed, index, "words"), rng_of(seed, index, name)
    kind = pick(rng, kinds)
    dialogues = kind.make(scene, rng, ALL_PAIRS)
    if not dialogues:  # nothing is printed there
        kind = CAPTION
        dialogues = kind.make(scene, rng, ALL_PAIRS)
    return _record(f"{name}-{index:05d}", index if kind.pictured else None, pick(rng, dialogues))


def regions(seed: int, index: int) -> dict[str, Any]:
    """What picture ``index`` would show: its regions, a record of LLaVA's JSON format."""
    (record,) = REGIONS.records(seed, index, "words", picture(index), sample_scene(seed, index, "words"))
    return record


def picture(index: int) -> str:
    """The name of a picture that is told and not drawn."""
    return f"told/{index:05d}"


def _record(id: str, told: int | None, dialogue: Dialogue) -> dict[str, Any]:
    """``told``: the number of the picture that it is about."""
    first, *others = dialogue
    turns = []
    for exchange in (first if told is None else first.after("<image>\n"), *others):
        turns += [{"from": "human", "value": exchange.text}, {"from": "gpt", "value": exchange.reply}]
    return {"id": id, "conversations": turns} | ({} if told is None else {"image": picture(told)})

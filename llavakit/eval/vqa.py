"""VQA accuracy and its two answer normalisations, which differ.

- :func:`vqa_accuracy`: the official VQA tool, ``vqaEval.py`` of GT-Vision-Lab/VQA; :func:`vizwiz_accuracy`: that of
  VizWiz, derived from it.
- :func:`m4c_accuracy`: TextVQA's metric as LLaVA computes it, ``m4c_evaluator.py`` of haotian-liu/LLaVA.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Hashable, Mapping, Sequence

# ^ marks where a missing apostrophe belongs: "ain^t" turns "aint" into "ain't". Words that the official table lists
# with a capital can not match (all is lower-cased before) and are left out.
_MARKED = """
ain^t aren^t can^t could^ve couldn^t couldn't^ve couldn^t've didn^t doesn^t don^t hadn^t hadn^t've hadn't^ve
hasn^t haven^t he^d he^d've he'd^ve he^s how^d how^ll how^s isn^t it^d it^d've it'd^ve it^ll ma^am mightn^t
mightn^t've mightn't^ve might^ve mustn^t must^ve needn^t not^ve o^clock oughtn^t ^ow's'at 'ow^s'at 'ow's^at
shan^t she^d've she'd^ve should^ve shouldn^t shouldn^t've shouldn't^ve somebody^d've somebody'd^ve somebody^ll
somebody^s someone^d someone^d've someone'd^ve someone^ll someone^s something^d something^d've something'd^ve
something^ll that^s there^d there^d've there'd^ve there^re there^s they^d they^d've they'd^ve they^ll they^re
they^ve ^twas wasn^t we^d've we'd^ve we^ve weren^t what^ll what^re what^s what^ve when^s where^d where^s
where^ve who^d who^d've who'd^ve who^ll who^s who^ve why^ll why^re why^s won^t would^ve wouldn^t wouldn^t've
wouldn't^ve y^all y^all'll y'all^ll y^all'd've y'all^d've y'all'd^ve you^d you^d've you'd^ve you^ll you^re you^ve
"""
_CONTRACTIONS = {word.replace("^", ""): word.replace("^", "'") for word in _MARKED.split()}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the other way round in the official table
# VizWiz's copy of the table has typographic apostrophes but for these: so its "dont" is no "don't".
_STRAIGHT = ("aint", "arent", "cant", "couldve", "couldnt", "weve", "wheres", "whove")
_CURLED = {word.replace("'", "’"): text.replace("'", "’") for word, text in _CONTRACTIONS.items()}
_CURLED |= {word: _CONTRACTIONS[word] for word in _STRAIGHT}
_CURLED |= {word: _CURLED.pop(word.replace("'", "’")) for word in ("couldn'tve", "hadn'tve")}
_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {word: str(n) for n, word in enumerate(_COUNTED.split())} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# The official code passes re.UNICODE, which is 32, where the number of substitutions stands.
_PERIODS_REMOVED = 32


@functools.lru_cache(maxsize=1 << 16)
def normalize(text: str) -> str:
    """The official tool's answer: punctuation, periods, articles, number words, contractions."""
    return _words(_strip_punctuation(text))


@functools.lru_cache(maxsize=1 << 16)
def normalize_m4c(text: str) -> str:
    """The M4C (EvalAI) processor's answer: lower-cased, commas and question marks dropped and possessives split
    before all that :func:`normalize` does."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalize(_one_line(text))


def vqa_accuracy(answer: str, answers: Sequence[str], records: Sequence[Hashable] = ()) -> float:
    """The official accuracy: the mean over ten annotators of min(1, matches among the other nine / 3).

    The official tool takes for "the other nine" those whose record differs: ``records`` is what an annotator's record
    holds beside the answer, where equal ones shall fall together as they do there.
    """
    answer, answers = _one_line(answer), [_one_line(a) for a in answers]
    # Where all annotators agree to the letter the official tool normalises nothing: then "Yes" is not "yes".
    if len(set(answers)) > 1:
        answer, answers = normalize(answer), [normalize(a) for a in answers]
    return _leave_one_out(answer, answers, records or range(len(answers)))


def vizwiz_accuracy(answer: str, answers: Sequence[str]) -> float:
    """VizWiz's own tool: as the VQA tool, but with its own contractions, and the annotators' answers stay as they were
    typed."""
    return _leave_one_out(_words(_strip_punctuation(_one_line(answer)), _CURLED), answers)


def m4c_accuracy(answer: str, answers: Sequence[str]) -> float:
    """TextVQA's soft accuracy: as :func:`vqa_accuracy`, both sides always through :func:`normalize_m4c`."""
    return _leave_one_out(normalize_m4c(answer), [normalize_m4c(a) for a in answers])


def _leave_one_out(answer: str, answers: Sequence[str], records: Sequence[Hashable] = ()) -> float:
    matching = [record for a, record in zip(answers, records or range(len(answers)), strict=True) if a == answer]
    scores = [len(matching)] * (len(answers) - len(matching))
    scores += [sum(other != own for other in matching) for own in matching]
    return sum(min(1.0, others / 3) for others in scores) / len(answers)


def _strip_punctuation(text: str) -> str:
    out = text
    grouped = _COMMA_IN_NUMBER.search(text) is not None
    for mark in _PUNCTUATION:
        drop = grouped or f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if drop else " ")
    return _PERIOD.sub("", out, count=_PERIODS_REMOVED)


def _words(text: str, contractions: Mapping[str, str] = _CONTRACTIONS) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(contractions.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()

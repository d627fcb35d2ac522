"""A guess at the language of a text: its script, and for Latin letters the small words of a few languages."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

READ = 2000  # characters; more do not change the guess

_SCRIPTS = {
    "CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean", "CYRILLIC": "Cyrillic",
    "ARABIC": "Arabic", "DEVANAGARI": "Devanagari", "HEBREW": "Hebrew", "GREEK": "Greek", "THAI": "Thai",
}  # fmt: skip
_SMALL = {
    "English": "the a an of to and is in on it with for this that are was be as at you what how there",
    "German": "der die das und ist nicht ein eine mit auf zu den von für im sich es dem auch wie",
    "French": "le la les des et est un une dans pour que qui sur avec pas du au il elle ce",
    "Spanish": "el la los las de y es un una en que por con para del se su al como",
    "Italian": "il lo la gli e di che è un una in per con non del della si sono come anche",
    "Portuguese": "o os de e é um uma em que por com para não do da se na pelo",
    "Dutch": "de het een en van is in op te dat met voor niet zijn aan er ook als bij maar",
}
_WORDS = {language: frozenset(words.split()) for language, words in _SMALL.items()}


def language(text: str) -> str:
    """Its name ("Latin letters" where small words do not tell), or "" for a text without letters."""
    text = text[:READ]
    letters = [character for character in text if character.isalpha()]
    if not letters:
        return ""
    foreign = sum(not character.isascii() for character in letters)
    if foreign > len(letters) / 4:
        scripts = Counter(_SCRIPTS.get(unicodedata.name(c, "").split(" ")[0], "") for c in letters)
        # Japanese mixes Chinese characters with its own: some kana tell.
        if scripts["Japanese"] > len(letters) / 20:
            return "Japanese"
        script, count = scripts.most_common(1)[0]
        if script and count > len(letters) / 3:
            return script
    words = re.findall(r"\w+", text.lower())
    hits = {name: sum(word in small for word in words) for name, small in _WORDS.items()}
    best = max(hits, key=lambda name: hits[name])
    return best if hits[best] > 1 and list(hits.values()).count(hits[best]) == 1 else "Latin letters"

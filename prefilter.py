"""Whether there is anything to read in a text; what cannot hold a complaint is skipped, with its reason."""

import re
import unicodedata

from schemas import SkipReason

_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_MENTION = re.compile(r"@\w{1,50}")
_EMOTICON = re.compile(r"[:;=xX][-'^o]?[()\[\]{}DPp/\\|*]|<3|[()][-'^]?[:;=]")
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers: letters and a symbol that show nothing


def why_skip(text: str) -> SkipReason | None:
    """The reason why `text` holds nothing to analyze; None when it should be read.

    Emoji and emoticons count as words: "😡" and ":(" are opinions.
    """
    rest = _MENTION.sub(" ", _LINK.sub(" ", text))
    if any(_speaks(character) for character in rest) or _EMOTICON.search(rest):
        return None
    if any(character.isdigit() for character in rest):
        return SkipReason.DIGITS_ONLY
    if _LINK.search(text):
        return SkipReason.LINK_ONLY
    if _MENTION.search(text):
        return SkipReason.MENTION_ONLY
    return SkipReason.PUNCTUATION_ONLY if any(map(_is_visible, text)) else SkipReason.EMPTY


def _speaks(character: str) -> bool:
    kind = unicodedata.category(character)
    return (kind[0] == "L" or kind in {"So", "Sk"}) and character not in _BLANKS


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSN" and character not in _BLANKS

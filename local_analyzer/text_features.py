"""Turn a text into the countable pieces that the offline analyzer weighs.

The training program and the analyzer both read texts through this module, so a weight always meets the piece it was
fitted on. A piece is a word, a pair of neighbouring words, a character 3- to 5-gram inside a word, or a trait of the
whole text; each is hashed by CRC-32 into one of `BUCKET_COUNT` buckets.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal
from zlib import crc32

BUCKET_BITS: Final = 18
BUCKET_COUNT: Final = 1 << BUCKET_BITS
_MASK: Final = BUCKET_COUNT - 1

# One CRC start value a kind of piece: the word "not" and the n-gram "not" fall into different buckets.
_WORD_SEED: Final = 0x1B873593
_PAIR_SEED: Final = 0x2545F491
_GRAM_SEED: Final = 0x38495AB5
_TRAIT_SEED: Final = 0x4CF5AD43

NEGATED: Final = "~"
_NEGATION_REACH: Final = 4  # words after "not" that carry its mark
_LONGEST_WORD: Final = 24  # what follows in a longer word adds pieces, not meaning

_URL: Final = re.compile(r"(?:https?://|www\.)\S+|\bhttps?\b:?/?/?")
_MENTION: Final = re.compile(r"@\w+")
_ESCAPED: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_STACKED: Final = re.compile(r"([\u0300-\u036f]{3})[\u0300-\u036f]+")  # NFC sorts such a stack in quadratic time
_REPEATED: Final = re.compile(r"([^\W\d_]|[!?.])\1{2,}")
_SHOUTED: Final = re.compile(r"\b[A-Z]{3,}\b")

_MARKS: Final = "\u0300-\u036f\u0610-\u061a\u064b-\u0655\u0670\u0900-\u0903\u093a-\u094d\u0951-\u0957\u0962\u0963"
TOKEN: Final = re.compile(
    rf"[^\W_][\w'{_MARKS}]*"  # words; Indic vowel signs and Arabic points are not \w
    r"|[:;=][-^o']?[()\[\]dp/\\|*3]+|<3+|\^_+\^|-_+-"  # emoticons
    r"|[\u2190-\u2bff\u3030\u303d\U0001f000-\U0001faff]"  # emoji and symbols
    r"|[!?]+|\.\.+|[@$£€%]"
)
_INVISIBLE: Final = (0x00, 0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFE0E, 0xFE0F, 0xFEFF)
_SKIN_TONES: Final = range(0x1F3FB, 0x1F400)
_PLAIN: Final = dict.fromkeys((*_INVISIBLE, *_SKIN_TONES)) | {
    0x2018: "'",
    0x2019: "'",
    0x02BC: "'",
    0xB4: "'",
    0x201C: '"',
    0x201D: '"',
    0x2026: "..",
}

_NEGATION_WORDS: Final = (
    "not no never none nobody nothing neither nor cannot cant can't dont don't doesnt doesn't didnt didn't wont won't "
    "isnt isn't arent aren't wasnt wasn't werent weren't hasnt hasn't havent haven't hadnt hadn't couldnt couldn't "
    "shouldnt shouldn't wouldnt wouldn't aint ain't without hardly barely "
    "nunca jamás tampoco sin nadie ningún ninguna pas jamais aucun aucune sans nicht kein keine keinen nie niemals "
    "ohne não nao nem ninguém nenhum sem non mai nessuno senza नहीं मत لا لم لن ليس"
)
_NEGATIONS: Final = frozenset(_NEGATION_WORDS.split())
_CLAUSE_ENDS: Final = frozenset(["!", "!!", "?", "??", "!?", "?!", "..", "but", "pero", "mais", "aber", "mas", "ma"])

# Words that say a bad thing has been put right, and words of relief; both are looked for outside a negation's reach.
_MENDING_WORDS: Final = (
    "fixed fixes sorted solved resolved restored repaired mended replaced refunded reimbursed credited waived "
    "reversed exchanged swapped cured unlocked rebooked arrived found helped worked works back gone here "
    "unblocked resuelto solucionado arreglado arregló solucionó llegó llegado devuelto funciona réglé résolu "
    "réparé corrigé arrivé revenu remboursé remarche behoben gelöst geklärt repariert angekommen resolvido "
    "resolveu corrigiu resolveram chegou voltou risolto sistemato arrivato tornato corretto"
)
_MENDING: Final = frozenset(_MENDING_WORDS.split())
_RELIEF_WORDS: Final = (
    "thanks thank thankyou thx ty cheers kudos props bravo hats impressed grateful appreciate appreciated well "
    "relief relieved happy pleased glad brilliant perfect legend finally 👍 👌 🙌 🙏 ❤ 😊 🎉 gracias merci danke dank "
    "obrigado obrigada valeu parabéns grazie bravi bravissimi klasse excelente"
)
_RELIEF: Final = frozenset(_RELIEF_WORDS.split())
# what follows may be put right, but is not yet
_OPEN_WORDS: Final = (
    "still yet never nothing nobody not isn't wasn't hasn't haven't won't don't doesn't didn't can't cannot when "
    "promised supposed waiting until worse only half ? ?? ?! !? sigue toujours immer ancora ainda continua"
)
_OPEN: Final = frozenset(_OPEN_WORDS.split())
_MENDED_COPIES: Final = 4  # one piece among hundreds would be too faint to be learned

Address = Literal["named", "masked", "none"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A text taken apart: `clean` for topic rules, `tokens` with negation marks, `traits` of the whole."""

    clean: str
    tokens: tuple[str, ...]
    traits: tuple[str, ...]
    address: Address


def read(text: str) -> Reading:
    """Take any string apart, in time linear in its length; lone surrogates, NUL and invisible marks are survived."""
    plain = plain_text(text)
    masked, address = _mask(plain)
    lowered = masked.lower()
    clean = _REPEATED.sub(r"\1\1", lowered)
    tokens = TOKEN.findall(clean)
    traits = _traits(masked, tokens, drawn_out=len(clean) != len(lowered), address=address)
    marked = tuple(_with_negation(tokens))
    return Reading(clean, marked, (*traits, *_ending(marked)), address)


def plain_text(text: str) -> str:
    """Undo what transport did to a text: entities (twice), `\\u2019` spelt out, split surrogates, invisible marks."""
    if "&" in text:
        text = _unescape(_unescape(text))
    if "\\u" in text:
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", _STACKED.sub(r"\1", text.translate(_PLAIN)))


def _unescape(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # "&#999...": int() refuses more than 4,300 digits
        return text


def _mask(plain: str) -> tuple[str, Address]:
    """Replace links and mentions by one token each, and say whether a mention named somebody."""
    if "http" in plain or "www." in plain:
        plain = _URL.sub(" url ", plain)
    if "@" not in plain:
        return plain, "none"
    names = _MENTION.findall(plain)
    if not names:
        return plain, "none"
    address: Address = "masked" if all(name.lower() == "@user" for name in names) else "named"
    return _MENTION.sub(" @ ", plain), address


def _with_negation(tokens: list[str]) -> Iterator[str]:
    reach = 0
    for token in tokens:
        if token in _NEGATIONS:
            reach = _NEGATION_REACH
            yield token
        elif token in _CLAUSE_ENDS:
            reach = 0
            yield token
        elif reach:
            reach -= 1
            yield NEGATED + token
        else:
            yield token


def _traits(masked: str, tokens: list[str], *, drawn_out: bool, address: Address) -> tuple[str, ...]:
    traits = [f"length {min(len(tokens).bit_length(), 6)}"]
    if drawn_out:
        traits.append("drawn out")
    if shouted := len(_SHOUTED.findall(masked)):
        traits.append("shouted" if shouted < 3 else "shouted much")
    if "?" in masked:
        traits.append("asks")
        if masked.rstrip().endswith("?"):
            traits.append("ends asking")
    if "!" in masked:
        traits.append("exclaims")
    if address == "named":
        traits.append("named")
    return tuple(traits)


def _ending(marked: tuple[str, ...]) -> list[str]:
    """How a complaint ended, as far as single words tell: words such as "refund" or "outage" say nothing of it."""
    words = frozenset(marked)
    if words.isdisjoint(_MENDING):
        return []
    if not words.isdisjoint(_OPEN):
        return ["open"]
    name = "mended" if words.isdisjoint(_RELIEF) else "mended, relieved"
    return [f"{name} {copy}" for copy in range(_MENDED_COPIES)]


def word_buckets(token: str) -> list[int]:
    """The buckets of one token: itself, and the character 3- to 5-grams inside its word, edges marked."""
    buckets = [crc32(token.encode(), _WORD_SEED) & _MASK]
    word = token.lstrip(NEGATED)
    if len(word) < 3:
        return buckets
    edged = f"<{word[:_LONGEST_WORD]}>"
    seed = _GRAM_SEED if token == word else _GRAM_SEED ^ 0x5BD1E995
    if edged.isascii():  # a byte is a character: encode once, not once an n-gram
        coded = edged.encode()
        for size in (3, 4, 5):
            buckets += [crc32(coded[at : at + size], seed) & _MASK for at in range(len(coded) - size + 1)]
        return buckets
    for size in (3, 4, 5):
        buckets += [crc32(edged[at : at + size].encode(), seed) & _MASK for at in range(len(edged) - size + 1)]
    return buckets


def pair_bucket(left: str, right: str) -> int:
    """The bucket of two neighbouring tokens."""
    return crc32(f"{left} {right}".encode(), _PAIR_SEED) & _MASK


def trait_bucket(trait: str) -> int:
    """The bucket of a trait of the whole text."""
    return crc32(trait.encode(), _TRAIT_SEED) & _MASK


def all_buckets(reading: Reading) -> list[int]:
    """Every bucket of a text, repeats included: what training counts."""
    buckets = [trait_bucket(trait) for trait in reading.traits]
    left = "^"
    for token in reading.tokens:
        buckets.extend(word_buckets(token))
        buckets.append(pair_bucket(left, token))
        left = token
    return buckets

"""Who reads a text: nobody, because it says nothing; the local analyzer, because it says little; or else Grok.

A complaint must reach Grok, so every doubt ends there; an audit share of the rest is sent as well, to measure the loss.
"""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32

from local_analyzer import LocalAnalysis, LocalAnalyzer
from schemas import Analysis, SkipReason

# Both end where other scripts begin, and a link ends in a letter, digit or slash: "https://t.co/a遅い" and
# "https://t.co/a:(" hold more than a link.
_LINK = re.compile(r"(?:https?://|www\.)[!-~]*[a-z0-9/]", re.IGNORECASE)
_MENTION = re.compile(r"@[A-Za-z0-9_]{1,50}")

# What digits and signs can say. Not among them: numbers alone (an order, a phone, a part "2."), dates, and "!!!" or
# "???", which give weight to words but have none to give it to.
_OPINION = re.compile(
    r"""  [:;=xX][-'^o]?[()\[\]{}DPp/\\|*@] | [()][-'^]?[:;=] | </?3   # emoticons, hearts whole and broken
        | [-^>.;=~'*]_+[-^<.;=~'*] | -\.- | >\.<                      # faces: -_- >_< -.-
        | (?<![\d/])\d+(?:[.,]\d+)?[ ]?[/\u2044\uff0f][ ]?\d+(?![\d/]) # ratings: 0/10, 4.5 / 5
        | \d[ ]?[*%$€£¥₹] | [$€£¥₹][ ]?\d                             # one star, a share, a price
        | \A\s*[-+]\d{1,4}\W*\Z                                       # "+1": the same happened to me
        | \b(?:40[34]|50[0234])\b                                     # the status with which a site is down
        | ([#$%&*@])(?!\1)[#$%&*@] | \*{3}                            # swearing: @#$%! ****
    """,
    re.VERBOSE,
)
_SPEAKING = frozenset({"So", "Sk", "Co", "Cn"})  # symbols; and emoji of one vendor, or newer than this Python
_BLANKS = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # fillers: letters and a symbol that show nothing

# Signs of friendliness. Left out is what also scoffs: 👏 😂 🙂 🙃 😉 👋.
_FRIENDLY = re.compile(
    r"[👍👌🙏🙌🤝🤗😊☺😀😃😄😁😍🥰😘🥳🎉🎊✅✔❤♥🧡💛💚💙💜💕💖💗💐][\ufe0f\U0001f3fb-\U0001f3ff]*"
    r"|[:=]-?(?:\)+|D\b)|\^_?\^|<3+"
)
_MARKS = re.compile(r"[#,¡،।]|(?<!\.)\.(?!\.)|(?<!!)!{1,2}(?!!)")  # "thanks..." and "hello!!!" have a tone of their own
_MOST_WORDS = 4
_LONGEST_CALM = 3  # letters: "OK" and "THX" are not shouted

# A line a language the analyzer knows: en es fr de pt it ar hi.
_THANKS = (
    "thanks( so much)?|thank (you|u)( so much| very much)?|many thanks|thankyou|thanx|thx|tysm|ty|cheers"
    "|(muchas |mil )?gracias"
    "|merci( beaucoup)?"
    "|danke( schön| sehr)?|dankeschön|vielen dank"
    "|(muito )?obrigad[oa]|valeu"
    "|(mille )?grazie|grazie mille"
    "|شكراً?( جزيلاً?)?|شكرًا( جزيلًا)?"
    "|धन्यवाद|शुक्रिया|dhanyavaa?d|shukriya"
)
_ANSWERS = (
    "ok|okay|yes|yep|yeah|yup|done|sent|dm sent|got it|will do|noted|following|hi|hello|hey|good (morning|evening)"
    "|vale|sí|listo|hecho|de acuerdo|hola|buenos días|buenas tardes"
    "|oui|d'accord|bonjour|bonsoir"
    "|ja|erledigt|alles klar|hallo|guten (morgen|tag|abend)"
    "|sim|feito|oi|olá|bom dia|boa (tarde|noite)"
    "|sì|fatto|va bene|buongiorno|buonasera"
    "|نعم|تمام|حسنا|تم|مرحبا|السلام عليكم"
    "|हाँ|हां|ठीक है|नमस्ते|namaste"
)
# Praise counts before thanks only: "Great." by itself is scorn as often as not.
_PRAISE = "great|perfect|awesome|perfecto|genial|parfait|super|perfekt|perfeito|ótimo|perfetto|ottimo|ممتاز"
_COURTESY = f"(?:{_ANSWERS}|(?:(?:{_PRAISE}) )?(?:{_THANKS}))"
_COURTESIES = re.compile(f"(?:{_COURTESY}(?: {_COURTESY})*)?")


class LocalStage(StrEnum):
    """Why the local analyzer's answer stands."""

    LITTLE_TO_READ = "little_to_read"
    CASCADE = "cascade"


@dataclass(frozen=True, slots=True)
class Skip:
    """There is nothing to read."""

    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Keep:
    """The local analyzer's answer stands; Grok is not asked."""

    analysis: Analysis
    stage: LocalStage


@dataclass(frozen=True, slots=True)
class Ask:
    """Grok reads it; `audit_of` is what would have been done with it, had the audit not chosen it."""

    audit_of: Skip | Keep | None = None


Verdict = Skip | Keep | Ask


class Prefilter:
    """Sorts texts, the same text of the same conversation always the same way; safe to share between threads.

    `local` is None where the local analyzer answers everything anyway. `cascade_confidence` (0..1, None: off) is how
    sure it must be of a text that does say something for its answer to stand. `audit_share` is 0..1.
    """

    def __init__(self, local: LocalAnalyzer | None, *, cascade_confidence: float | None, audit_share: float) -> None:
        self._local = local
        self._cascade_confidence = cascade_confidence
        self._audit_share = audit_share

    def sort(self, conversation_id: str, text: str) -> Verdict:
        """What is to be done with a text, in time linear in its length."""
        verdict = self._judge(text)
        if isinstance(verdict, Ask) or not self._audits(conversation_id):
            return verdict
        return Ask(audit_of=verdict)

    def _judge(self, text: str) -> Verdict:
        if (reason := why_skip(text)) is not None:
            return Skip(reason)
        if self._local is None:
            return Ask()
        little = _says_little(text)
        if not little and self._cascade_confidence is None:
            return Ask()
        local = self._local.analyze(text)
        if little and local.sentiment != "negative":
            return Keep(_to_analysis(local), LocalStage.LITTLE_TO_READ)
        if self._cascade_confidence is not None and local.confidence >= self._cascade_confidence:
            return Keep(_to_analysis(local), LocalStage.CASCADE)
        return Ask()

    def _audits(self, conversation_id: str) -> bool:
        """Drawn by the id, not by chance: a retry, and another worker, draw the same."""
        return crc32(conversation_id.encode()) < self._audit_share * 2**32


def why_skip(text: str) -> SkipReason | None:
    """The reason why `text` holds nothing to analyze; None when it should be read.

    Emoji, emoticons and ratings count as words: "😡", ":(" and "0/10" are opinions.
    """
    rest = _MENTION.sub(" ", _LINK.sub(" ", text))
    if any(_speaks(character) for character in rest) or _OPINION.search(rest):
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
    return (kind[0] == "L" or kind in _SPEAKING) and character not in _BLANKS


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] in "PSN" and character not in _BLANKS


def _says_little(text: str) -> bool:
    """Whether a text that is not skipped holds nothing but up to four words of courtesy and signs of friendliness.

    Not beside a link, which mostly is a picture: "thanks https://t.co/a" may thank for what it shows. A word twice, a
    shout, a question, dots or an unknown sign is a tone that Grok should hear.
    """
    if _LINK.search(text):
        return False
    words = _MARKS.sub(" ", _FRIENDLY.sub(" ", _MENTION.sub(" ", text))).split()
    if len(words) > _MOST_WORDS or any(word.isupper() and len(word) > _LONGEST_CALM for word in words):
        return False
    plain = [word.lower().replace("\u2019", "'") for word in words]
    return len(set(plain)) == len(plain) and _COURTESIES.fullmatch(" ".join(plain)) is not None


def _to_analysis(local: LocalAnalysis) -> Analysis:
    return Analysis.model_validate(local, from_attributes=True)

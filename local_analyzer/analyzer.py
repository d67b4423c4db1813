"""Read a conversation without any network: sentiment, topics, language, and a sentence that says why.

Nothing here needs more than the standard library, so offline mode costs neither memory nor a download.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from local_analyzer.language import UNKNOWN, guess_language
from local_analyzer.sentiment_model import (
    LABELS,
    ModelWeights,
    Sentiment,
    SentimentModel,
    Setting,
    Verdict,
    load_weights,
)
from local_analyzer.text_features import NEGATED, Reading, plain_text, read
from local_analyzer.topic_rules import TopicHits, TopicRules

LOCAL_MODEL: Final = "local-linear-1"  # marks every answer of its own
WEIGHTS_PATH: Final = Path(__file__).parents[1] / "training" / "weights.bin"

_LEARNED: Final = frozenset({"ar", "de", "es", "fr", "hi", "it", "pt"})  # besides English
_STRANGE_CAP: Final = 0.4  # a little above chance: in a language it never saw the model is sure without a reason
_EMPTY_CONFIDENCE: Final = 0.5

_MAX_CLUSTERS: Final = 3
_MAX_REASONING: Final = 300
_MAX_SUMMARY: Final = 140
_QUOTED_WORDS: Final = 3
_MAX_QUOTE: Final = 24  # of one word, quoted in the reasoning
_OTHER: Final = "other"
_PRAISE: Final = "praise"
_INQUIRY: Final = "general_inquiry"
_TREATMENT: Final = "customer_service"
_SOFT_TOPICS: Final = frozenset({_PRAISE, _INQUIRY, "feature_request"})  # they say little about what went wrong

_QUOTABLE: Final = re.compile(r"\w|[\u2190-\u2bff\U0001f000-\U0001faff:;<]")
_LINKS_AND_NAMES: Final = re.compile(r"(?:https?://|www\.)\S+|[.]?@\w+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s+|\n")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\u0080-\u009f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class LocalAnalysis:
    """One analysis; `sentiment_score` is within -0.1..0.1 exactly when `sentiment` is neutral."""

    sentiment: Literal["positive", "neutral", "negative"]
    sentiment_score: float
    clusters: tuple[str, ...]
    confidence: float
    reasoning: str
    summary: str
    language: str


class LocalAnalyzer:
    """The offline analyzer: deterministic, and safe to share between threads."""

    def __init__(
        self,
        weights: ModelWeights,
        topic_patterns: Mapping[str, Sequence[re.Pattern[str]]],
        *,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        """`renamed`: old ids of topics and the new ones; some have a part to play here, by the id they had first."""
        parts = {new: old for old, new in (renamed or {}).items() if old in _SOFT_TOPICS | {_TREATMENT}}
        self._model = SentimentModel(weights)
        self._rules = TopicRules({parts.get(topic, topic): rules for topic, rules in topic_patterns.items()})
        self._names = {parts.get(topic, topic): topic for topic in topic_patterns}

    @classmethod
    def load(
        cls,
        weights_path: Path = WEIGHTS_PATH,
        *,
        topic_patterns: Mapping[str, Sequence[re.Pattern[str]]],
        renamed: Mapping[str, str] | None = None,
    ) -> "LocalAnalyzer":
        """Build one from the weights that ship with the project.

        Raises: OSError when the weights are missing; ValueError when they do not fit this version.
        """
        return cls(load_weights(weights_path), topic_patterns, renamed=renamed)

    def analyze(self, text: str) -> LocalAnalysis:
        """Read any string, in time linear in its length."""
        reading = read(text)
        language = guess_language(reading.clean, reading.tokens)
        found = self._rules.find(reading.clean)
        verdict = self._model.judge(reading, _setting(reading, language, found))
        if not _strongest_words(reading, verdict):  # only the prior spoke
            verdict = replace(verdict, label="neutral")
        hit = _choose_topics(found, verdict.label, asks="?" in reading.clean)
        chosen = [replace(hits, topic=self._names.get(hits.topic, _OTHER)) for hits in hit]
        return LocalAnalysis(
            sentiment=verdict.label,
            sentiment_score=_score(verdict),
            clusters=tuple(dict.fromkeys(hits.topic for hits in chosen)),
            confidence=_confidence(verdict, reading, language),
            reasoning=_reasoning(reading, verdict, chosen),
            summary=summarize(text),
            language=language,
        )


def _setting(reading: Reading, language: str, found: Sequence[TopicHits]) -> Setting:
    """Which calibration fits: support texts name whom they are sent to, or speak of what support is for."""
    if language in _LEARNED or language not in {"en", UNKNOWN}:
        return "foreign"
    if reading.address == "named":
        return "support"
    if reading.address == "none" and any(hits.topic not in _SOFT_TOPICS for hits in found):
        return "support"
    return "public"


def _choose_topics(found: Sequence[TopicHits], label: Sentiment, *, asks: bool) -> list[TopicHits]:
    """One to three topics: the strongest, and those for which as many patterns speak.

    Where only one pattern each speaks, just customer service is named beside the first: how somebody was treated comes
    with what went wrong, while two faint topics are mostly one.
    """
    if label == "positive":
        return [hits for hits in found if hits.topic == _PRAISE] or [TopicHits(_PRAISE, ())]
    solid = [hits for hits in found if hits.topic != _PRAISE]
    if label == "neutral" and asks:
        inquiry = [hits for hits in solid if hits.topic == _INQUIRY]
        if inquiry or not solid:
            return inquiry or [TopicHits(_INQUIRY, ())]
    if not solid:
        return [TopicHits(_OTHER, ())]
    most = len(solid[0].words)
    tied = [hits for hits in solid if len(hits.words) == most]
    return [hits for hits in tied if most > 1 or hits is tied[0] or hits.topic == _TREATMENT][:_MAX_CLUSTERS]


def _score(verdict: Verdict) -> float:
    """-1..1: the strength of the label, in the band that belongs to it."""
    negative, _, positive = verdict.odds
    if verdict.label == "neutral":
        return round(0.1 * (positive - negative), 4) + 0.0  # no -0.0
    strength = (max(negative, positive) - 1 / 3) * 1.5
    score = round(0.1001 + 0.8999 * min(1.0, max(0.0, strength)), 4)
    return score if verdict.label == "positive" else -score


def _confidence(verdict: Verdict, reading: Reading, language: str) -> float:
    if not reading.tokens:
        return _EMPTY_CONFIDENCE
    strange = language not in _LEARNED and language not in {"en", UNKNOWN}
    return round(min(verdict.confidence, _STRANGE_CAP) if strange else verdict.confidence, 2)


def _reasoning(reading: Reading, verdict: Verdict, chosen: Sequence[TopicHits]) -> str:
    """One sentence that names the words that decided."""
    seen = _strongest_words(reading, verdict)
    weighed = (
        f"{verdict.label.capitalize()} because of {_quote(seen)}" if seen else f"Nothing in it weighs; {verdict.label}"
    )
    topics = "; ".join(
        f"{hits.topic} from {_quote(hits.words[:2])}" if hits.words else f"{hits.topic} by default" for hits in chosen
    )
    return f"{weighed}; {topics}."[:_MAX_REASONING]


def _strongest_words(reading: Reading, verdict: Verdict) -> list[str]:
    """Up to three words or emoji that pulled most towards the label, strongest first."""
    at = LABELS.index(verdict.label)
    pulls = {
        token: 3 * pull[at] - pull.negative - pull.neutral - pull.positive
        for token, pull in zip(reading.tokens, verdict.pulls, strict=True)
    }
    strongest: list[str] = []
    for token in sorted(pulls, key=pulls.__getitem__, reverse=True):
        if len(strongest) == _QUOTED_WORDS or pulls[token] <= 0:
            break
        if _QUOTABLE.match(token.lstrip(NEGATED)):
            strongest.append(f"not {token[1:]}" if token[0] == NEGATED else token)
    return strongest


def _quote(words: Sequence[str]) -> str:
    return ", ".join(f"'{word.strip()[:_MAX_QUOTE]}'" for word in words)


def summarize(text: str) -> str:
    """The first sentence, without links and mentions, cut at a word to at most 140 characters."""
    cleaned = " ".join(_UNPRINTABLE.sub(" ", _LINKS_AND_NAMES.sub(" ", plain_text(text))).split())
    sentences = _SENTENCE_END.split(cleaned, maxsplit=3)
    first = next((sentence for sentence in sentences if len(sentence) > 12), cleaned)
    if len(first) <= _MAX_SUMMARY:
        return first
    cut = first[: _MAX_SUMMARY - 1]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut[60:] else cut}\u2026"

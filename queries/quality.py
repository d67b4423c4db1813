"""How far the model agrees with the people who corrected it: on sentiment, on topics, and as sure as it said it was."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from sqlalchemy import select

from answers import CalibrationBin, QualityReport, Ratio, SentimentQuality, TopicQuality
from database import ReadSession
from models import CorrectionRow, InsightRow
from schemas import Sentiment

_Z = 1.959964  # of 95 %
_BIN_EDGES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SIDES = tuple(Sentiment)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the model said of a conversation, and what a person did; None where they said nothing."""

    model_sentiment: Sentiment
    model_confidence: float
    model_topics: frozenset[str]
    sentiment: Sentiment | None
    topics: frozenset[str] | None


def read_quality(session: ReadSession, model: str | None) -> QualityReport:
    """Of all corrections, or of those of what one model read."""
    columns = (
        CorrectionRow.sentiment,
        CorrectionRow.topics,
        CorrectionRow.model_score,
        CorrectionRow.model_confidence,
        CorrectionRow.model_clusters,
        InsightRow.model,
    )
    statement = select(*columns).join(InsightRow, InsightRow.conversation_id == CorrectionRow.conversation_id)
    if model is not None:
        statement = statement.where(InsightRow.model == model)
    judgements: list[Judgement] = []
    models: Counter[str] = Counter()
    for row in session.execute(statement):
        models[row.model] += 1
        judgements.append(
            Judgement(
                Sentiment.of_score(row.model_score),
                row.model_confidence,
                frozenset(row.model_clusters),
                None if row.sentiment is None else Sentiment(row.sentiment),
                None if row.topics is None else frozenset(row.topics),
            )
        )
    return {
        "corrections": len(judgements),
        "models": dict(models.most_common()),
        "sentiment": judge_sentiments(judgements),
        "topics": judge_topics(judgements),
    }


def judge_sentiments(judgements: Sequence[Judgement]) -> SentimentQuality:
    judged = [one for one in judgements if one.sentiment is not None]
    pairs = Counter((one.sentiment, one.model_sentiment) for one in judged)
    bins = _calibration(judged)
    error = sum(abs(one["accuracy"]["share"] - one["mean_confidence"]) * one["accuracy"]["of"] for one in bins)
    return {
        "agreement": ratio(sum(one.sentiment is one.model_sentiment for one in judged), len(judged)),
        "confusion": {str(person): {str(model): pairs[person, model] for model in _SIDES} for person in _SIDES},
        "calibration": bins,
        "calibration_error": round(error / len(judged), 4) if judged else None,
    }


def judge_topics(judgements: Sequence[Judgement]) -> TopicQuality:
    judged = [(one.topics, one.model_topics) for one in judgements if one.topics is not None]
    right, said, meant = Counter[str](), Counter[str](), Counter[str]()
    for person, model in judged:
        right.update(person & model)
        said.update(model)
        meant.update(person)
    return {
        "exact_agreement": ratio(sum(person == model for person, model in judged), len(judged)),
        "micro_f1": _f1(right.total(), said.total(), meant.total()),
        "by_topic": [
            {
                "topic": topic,
                "precision": ratio(right[topic], said[topic]),
                "recall": ratio(right[topic], meant[topic]),
                "f1": _f1(right[topic], said[topic], meant[topic]),
            }
            for topic in sorted({*said, *meant})
        ],
    }


def ratio(count: int, of: int) -> Ratio:
    """With Wilson's interval of 95 %: it holds for few, and for shares near 0 and 1.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not of:
        return {"count": 0, "of": 0, "share": 0.0, "low": 0.0, "high": 1.0}
    share, squared = count / of, _Z * _Z
    middle = (share + squared / (2 * of)) / (1 + squared / of)
    half = _Z * sqrt(share * (1 - share) / of + squared / (4 * of * of)) / (1 + squared / of)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"count": count, "of": of, "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


def _calibration(judged: Sequence[Judgement]) -> list[CalibrationBin]:
    """How often the model was right, by how sure it said it was; bins without any are left out."""
    bins: list[CalibrationBin] = []
    for low, high in pairwise(_BIN_EDGES):
        inside = [one for one in judged if low <= one.model_confidence < high or (high == 1.0 == one.model_confidence)]
        if inside:
            right = sum(one.sentiment is one.model_sentiment for one in inside)
            mean = round(sum(one.model_confidence for one in inside) / len(inside), 4)
            bins.append({"from": low, "to": high, "mean_confidence": mean, "accuracy": ratio(right, len(inside))})
    return bins


def _f1(right: int, said: int, meant: int) -> float | None:
    return round(2 * right / (said + meant), 4) if said + meant else None

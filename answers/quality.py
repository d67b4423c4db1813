"""What is answered of the model's quality, measured against what people corrected."""

from typing_extensions import TypedDict


class Ratio(TypedDict):
    """A share with its interval of 95 %; of none it is anywhere between 0 and 1."""

    count: int
    of: int
    share: float
    low: float
    high: float


CalibrationBin = TypedDict(  # "from" is a word of Python
    "CalibrationBin", {"from": float, "to": float, "mean_confidence": float, "accuracy": Ratio}
)


class SentimentQuality(TypedDict):
    """`confusion`: what people said, and under it what the model had said. `calibration_error`: by how much the model
    is surer or less sure than right, averaged over the corrections (ECE).
    """

    agreement: Ratio
    confusion: dict[str, dict[str, int]]
    calibration: list[CalibrationBin]
    calibration_error: float | None


class TopicScore(TypedDict):
    topic: str
    precision: Ratio
    recall: Ratio
    f1: float | None


class TopicQuality(TypedDict):
    exact_agreement: Ratio
    micro_f1: float | None
    by_topic: list[TopicScore]


class QualityReport(TypedDict):
    """As representative as the conversations that were corrected: whoever corrects only what is wrong sees too little.

    `models`: how many corrections are of what each model read.
    """

    corrections: int
    models: dict[str, int]
    sentiment: SentimentQuality
    topics: TopicQuality

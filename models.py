"""The tables, their CHECKs and their indexes; the schema refuses every state that the service must never be in."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Connection,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    event,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeEngine

# SQLite makes only an INTEGER primary key the row id.
_RowId = BigInteger().with_variant(Integer, "sqlite")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How insights are counted (`InsightCount`): what the columns hold for all topics and for any confidence, and the units.
ALL_TOPICS = "*"
ANY_CONFIDENCE = -1
SCORE_UNITS = 10_000  # of a score of 1
CONFIDENCE_UNITS = 100
TENTH = 10  # of these units
_MICROSECOND = timedelta(microseconds=1)


def tenth_key(confidence: int) -> int:
    """Under what the confidences of a tenth, such as 0.80 to 0.89, are counted together."""
    return ANY_CONFIDENCE - 1 - confidence // TENTH


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, kept to the microsecond: an integer since 1970 on SQLite, `timestamptz` on PostgreSQL.

    SQLAlchemy's own `DateTime(timezone=True)` drops the offset on SQLite.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native: TypeEngine[Any] = TIMESTAMP(timezone=True) if dialect.name == "postgresql" else BigInteger()
        return dialect.type_descriptor(native)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone must not reach the database")
        return value if dialect.name == "postgresql" else (value - EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value.astimezone(UTC) if dialect.name == "postgresql" else EPOCH + value * _MICROSECOND
        return moment


def _partial_index(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """SQLite uses it only for a query whose condition holds the same words, literally."""
    return Index(name, *columns, unique=unique, sqlite_where=sql(where), postgresql_where=sql(where))


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        str: Text,
        dict[str, Any]: JSON(none_as_null=True),
        int: BigInteger,
        bytes: LargeBinary,
    }


class Conversation(Base):
    """What a client sent, and where it stands: pending -> processing -> completed | failed | skipped.

    `due_at` alone says when a row may be taken: accepted, backing off and end of the lease are one rule.
    `lease_epoch` rises with every claim; an outcome is saved only under the epoch it was claimed with.
    `attempts` counts unusable answers, `rescues` counts owners that died with the row in hand.
    `reread_at`: when it was asked to be read again, until it has been; its insight stays meanwhile.
    """

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    author: Mapped[str | None]
    timestamp: Mapped[datetime]
    raw_data: Mapped[dict[str, Any] | None]
    external_id: Mapped[str | None]
    content_hash: Mapped[str | None]
    status: Mapped[str]
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]
    lease_epoch: Mapped[int] = mapped_column(server_default=sql("0"))
    attempts: Mapped[int] = mapped_column(server_default=sql("0"))
    rescues: Mapped[int] = mapped_column(server_default=sql("0"))
    error_code: Mapped[str | None]
    error: Mapped[str | None]
    raw_answer: Mapped[str | None]
    skip_reason: Mapped[str | None]
    reread_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'processing', 'completed', 'failed', 'skipped')", "status_known"),
        CheckConstraint("(due_at IS NULL) = (status IN ('completed', 'failed', 'skipped'))", "due_while_open"),
        CheckConstraint("(status = 'failed') = (error IS NOT NULL AND error_code IS NOT NULL)", "failed_says_why"),
        CheckConstraint("(status = 'skipped') = (skip_reason IS NOT NULL)", "skipped_says_why"),
        CheckConstraint("(external_id IS NULL) = (content_hash IS NULL)", "external_id_with_hash"),
        CheckConstraint("status <> 'processing' OR lease_epoch > 0", "processing_is_leased"),
        CheckConstraint("length(text) BETWEEN 1 AND 10000", "text_length"),
        CheckConstraint("attempts >= 0 AND rescues >= 0", "counts_not_negative"),
        CheckConstraint("reread_at IS NULL OR due_at IS NOT NULL", "reread_while_open"),
        # the claim: due_at <= :now ORDER BY due_at; and the next of those whose owners died
        _partial_index("ix_conversations_due_at", "due_at", where="due_at IS NOT NULL"),
        _partial_index("ix_conversations_rescued", "due_at", where="rescues > 0 AND due_at IS NOT NULL"),
        # accept: has this sender's key been stored before?
        _partial_index("uq_conversations_external_id", "external_id", unique=True, where="external_id IS NOT NULL"),
        # list and retry of the few that failed or were skipped
        _partial_index("ix_conversations_set_aside", "status", "id", where="status IN ('failed', 'skipped')"),
    )


class InsightRow(Base):
    """What was found in one conversation; text, author and time are copied so that reads need no join.

    Sentiment, score, clusters and confidence are those of the correction where there is one (`corrected_at`); what the
    model had said of them is kept there.
    """

    __tablename__ = "insights"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), unique=True)
    timestamp: Mapped[datetime]
    text: Mapped[str]
    author: Mapped[str | None]
    sentiment: Mapped[str]
    sentiment_score: Mapped[float]
    clusters: Mapped[list[str]] = mapped_column(JSON)
    confidence: Mapped[float]
    reasoning: Mapped[str]
    grok_analysis: Mapped[dict[str, Any]] = mapped_column(JSON)
    model: Mapped[str]
    created_at: Mapped[datetime]
    corrected_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("sentiment_score BETWEEN -1 AND 1", "score_in_range"),
        CheckConstraint("confidence BETWEEN 0 AND 1", "confidence_in_range"),
        CheckConstraint(
            "sentiment = CASE WHEN sentiment_score > 0.1 THEN 'positive'"
            " WHEN sentiment_score < -0.1 THEN 'negative' ELSE 'neutral' END",
            "sentiment_matches_score",
        ),
        # a page of insights, newest first: a walk that leaves out what does not match; the edges of counts and sums
        Index("ix_insights_timestamp", "timestamp", "id", "sentiment", "confidence", "sentiment_score"),
        # a page of few: a leap to what has this sentiment and at least this confidence
        Index("ix_insights_judged", "sentiment", "confidence", "timestamp", "id"),
        # a page of one author
        _partial_index("ix_insights_author", "author", "timestamp", "id", where="author IS NOT NULL"),
    )


# Full text: an FTS5 index on SQLite that reads the text from `insights`, an expression index on PostgreSQL. Words are
# added a batch at a time, by `store`: a trigger flushes the index after every row (20 us each, against 1.5).
WORDS = "insight_words"
_FTS5 = (
    """CREATE VIRTUAL TABLE insight_words
    USING fts5(text, content='insights', content_rowid='id', columnsize=0, tokenize='unicode61 remove_diacritics 2')""",
    """CREATE TRIGGER insight_words_erased AFTER DELETE ON insights
    BEGIN INSERT INTO insight_words(insight_words, rowid, text) VALUES ('delete', old.id, old.text); END""",
)


def _add_words(_table: object, connection: Connection, **_options: object) -> None:
    if connection.dialect.name == "sqlite":
        for statement in _FTS5:
            connection.exec_driver_sql(statement)


def _drop_words(_table: object, connection: Connection, **_options: object) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {WORDS}")


event.listen(InsightRow.__table__, "after_create", _add_words)
event.listen(InsightRow.__table__, "before_drop", _drop_words)
Index("ix_insights_words", func.to_tsvector(sql("'simple'"), InsightRow.text), postgresql_using="gin").ddl_if(
    dialect="postgresql"
)


class InsightTopic(Base):
    """One topic of one insight; what insights are filtered by is copied, so that a topic is walked without a join."""

    __tablename__ = "insight_topics"

    topic: Mapped[str] = mapped_column(primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    insight_id: Mapped[int] = mapped_column(ForeignKey("insights.id", ondelete="CASCADE"), primary_key=True)
    sentiment: Mapped[str]
    confidence: Mapped[float]

    __table_args__ = (
        # a page of few, within a topic
        Index("ix_insight_topics_judged", "topic", "sentiment", "confidence", "timestamp", "insight_id"),
        # the topics of one insight, when it is erased
        Index("ix_insight_topics_insight_id", "insight_id"),
        {"sqlite_with_rowid": False},
    )


class InsightCount(Base):
    """How many insights there are, and what they add up to, by hour and by day (UTC); `store.counting` keeps them.

    `topic` is one topic, `*` for all insights, or `a+b` for those that have all of these, two or three.
    `confidence` is in hundredths, -1 for any, or below that for a tenth (`tenth_key`). `period` is hours or days since
    1970. Sums are whole numbers, so that they never drift: scores in ten-thousandths, confidences in hundredths.
    """

    __tablename__ = "insight_counts"

    span: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(primary_key=True)
    confidence: Mapped[int] = mapped_column(primary_key=True)
    period: Mapped[int] = mapped_column(primary_key=True)
    positive: Mapped[int]
    neutral: Mapped[int]
    negative: Mapped[int]
    score_sum: Mapped[int]
    confidence_sum: Mapped[int]

    __table_args__ = (
        CheckConstraint("span IN ('hour', 'day')", "span_known"),
        CheckConstraint("positive >= 0 AND neutral >= 0 AND negative >= 0", "counts_not_negative"),
        {"sqlite_with_rowid": False},
    )


class CorrectionRow(Base):
    """What a person says of a conversation instead of the model, or in agreement with it; null where they said nothing.

    `model_*` is what the model had said: the insight's own columns hold what is true now.
    """

    __tablename__ = "corrections"

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("insights.conversation_id", ondelete="CASCADE"), primary_key=True
    )
    sentiment: Mapped[str | None]
    topics: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    note: Mapped[str | None]
    corrected_at: Mapped[datetime]
    model_score: Mapped[float]
    model_clusters: Mapped[list[str]] = mapped_column(JSON)
    model_confidence: Mapped[float]

    __table_args__ = (
        CheckConstraint("sentiment IN ('positive', 'neutral', 'negative')", "sentiment_known"),
        CheckConstraint("sentiment IS NOT NULL OR topics IS NOT NULL", "says_something"),
    )


class ReanalysisRow(Base):
    """An order to read again what some filters match; worked off newest first, a little at a time.

    `timestamp` and `insight_id` are the place up to which its conversations have been sent back.
    """

    __tablename__ = "reanalyses"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    filters: Mapped[dict[str, Any]]
    requested_at: Mapped[datetime]
    matched: Mapped[int]
    requeued: Mapped[int] = mapped_column(server_default=sql("0"))
    timestamp: Mapped[datetime | None]
    insight_id: Mapped[int | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("(timestamp IS NULL) = (insight_id IS NULL)", "place_is_whole"),
        # what is left to be worked off
        _partial_index("ix_reanalyses_open", "id", where="ended_at IS NULL"),
    )


class IdempotencyKey(Base):
    """What a POST with this `Idempotency-Key` was answered, for 24 hours."""

    __tablename__ = "idempotency_keys"

    key_hash: Mapped[str] = mapped_column(primary_key=True)
    body_hash: Mapped[str]
    outcomes: Mapped[list[list[str]]] = mapped_column(JSON)
    created_at: Mapped[datetime]

    # the purge of keys older than 24 hours
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)


class CachedAnalysis(Base):
    """What the model said of a text, so that an equal text needs no call.

    `key` is a SHA-256 over the normalised text and all else that the answer depends on: model, prompt, schema.
    """

    __tablename__ = "analysis_cache"

    key: Mapped[bytes] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    analysis: Mapped[dict[str, Any]] = mapped_column(JSON)
    model: Mapped[str]
    created_at: Mapped[datetime]

    __table_args__ = (
        # what one conversation left here, when it is erased
        Index("ix_analysis_cache_conversation_id", "conversation_id"),
        # the purge of what is too old
        Index("ix_analysis_cache_created_at", "created_at"),
        {"sqlite_with_rowid": False},
    )


class GrokCall(Base):
    """A call to Grok, from before it is sent until a minute after; `reserved_ticks` is 0 once it is settled.

    `caller` is the process that made it: each knows when its own calls were sent, and of the others only this.
    """

    __tablename__ = "grok_calls"

    id: Mapped[int] = mapped_column(_RowId, primary_key=True)
    caller: Mapped[str]
    day: Mapped[str]
    model: Mapped[str]
    conversations: Mapped[int]
    reserved_ticks: Mapped[int]
    called_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("reserved_ticks >= 0", "reserved_not_negative"),
        # how many were sent within the last second, and what is too old
        Index("ix_grok_calls_called_at", "called_at"),
        # what is reserved on a day
        Index("ix_grok_calls_day", "day", "reserved_ticks"),
        {"sqlite_autoincrement": True},  # a number that was settled is never another call's
    )


class GrokUsage(Base):
    """What Grok was used for on a day (UTC), by model; costs in ticks, 10^10 to the dollar.

    `unreported_calls` ended without a word of what they used: they cost all that was reserved for them.
    """

    __tablename__ = "grok_usage"

    day: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    calls: Mapped[int]
    unreported_calls: Mapped[int]
    conversations: Mapped[int]
    uncached_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    output_tokens: Mapped[int]
    reasoning_tokens: Mapped[int]
    cost_ticks: Mapped[int]


class TallyRow(Base):
    """How often something happened, counted in the transaction in which it did (`schemas.Tally`)."""

    __tablename__ = "tallies"

    name: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]

"""The plain design to compare queries with: ORM entities, topics as JSON, COUNT, OFFSET and GROUP BY."""

import os
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, ColumnElement, DateTime, String, Text, case, create_engine, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Insight(Base):
    __tablename__ = "insights"

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(String(64), index=True)
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True), index=True)
    text: Mapped[str] = mapped_column(Text)
    author: Mapped[str | None] = mapped_column(String(255), index=True)
    sentiment_score: Mapped[float] = mapped_column(index=True)
    clusters: Mapped[list[str]] = mapped_column(JSON)
    confidence: Mapped[float] = mapped_column(index=True)
    reasoning: Mapped[str] = mapped_column(Text)
    grok_analysis: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class InsightOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    conversation_id: str
    timestamp: datetime
    text: str
    author: str | None
    sentiment_score: float
    clusters: list[str]
    confidence: float
    reasoning: str
    grok_analysis: dict[str, Any]


class Page(BaseModel):
    insights: list[InsightOut]
    total_count: int


class Filters(BaseModel):
    start_time: datetime | None = None
    end_time: datetime | None = None
    sentiment: str | None = None
    min_confidence: float | None = None
    topic: list[str] = []
    tz: str = "UTC"
    limit: int = 100
    offset: int = 0


engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ.get('PLAIN_DATABASE', 'plain.db')}")
session_factory = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
    yield
    await engine.dispose()


async def get_session() -> AsyncGenerator[AsyncSession, None]:
    async with session_factory() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
app = FastAPI(title="Plain queries", lifespan=lifespan)


@app.get("/ready")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.get("/api/v1/insights")
async def find_insights(filters: Annotated[Filters, Query()], session: SessionDep) -> Page:
    wanted = _wanted(filters)
    total = await session.scalar(select(func.count()).select_from(Insight).where(*wanted))
    newest = select(Insight).where(*wanted).order_by(Insight.timestamp.desc(), Insight.id.desc())
    rows = await session.scalars(newest.limit(filters.limit).offset(filters.offset))
    return Page(insights=[InsightOut.model_validate(row) for row in rows], total_count=total or 0)


@app.get("/api/v1/insights/trends")
async def read_trends(filters: Annotated[Filters, Query()], session: SessionDep) -> dict[str, Any]:
    wanted = _wanted(filters)
    day = func.date(Insight.timestamp)
    days = await session.execute(select(day, *_feelings()).where(*wanted).group_by(day).order_by(day))
    each = _each_topic()
    topics = await session.execute(
        select(each.c.value, *_feelings())
        .select_from(Insight)
        .join(each, onclause=true())
        .where(*wanted)
        .group_by(each.c.value)
    )
    return {
        "buckets": [dict(zip(_FEELINGS, row, strict=True)) for row in days],
        "topics": [dict(zip(_FEELINGS, row, strict=True)) for row in topics],
    }


_FEELINGS = ("key", "count", "positive", "negative", "mean_sentiment", "mean_confidence")


def _feelings() -> list[ColumnElement[Any]]:
    return [
        func.count(),
        func.sum(case((Insight.sentiment_score > 0.1, 1), else_=0)),
        func.sum(case((Insight.sentiment_score < -0.1, 1), else_=0)),
        func.avg(Insight.sentiment_score),
        func.avg(Insight.confidence),
    ]


def _wanted(filters: Filters) -> list[ColumnElement[bool]]:
    score = Insight.sentiment_score
    wanted: list[ColumnElement[bool]] = []
    if filters.start_time:
        wanted.append(Insight.timestamp >= filters.start_time.astimezone(UTC))
    if filters.end_time:
        wanted.append(Insight.timestamp < filters.end_time.astimezone(UTC))
    if filters.sentiment:
        of = {"positive": score > 0.1, "negative": score < -0.1, "neutral": score.between(-0.1, 0.1)}
        wanted.append(of[filters.sentiment])
    if filters.min_confidence is not None:
        wanted.append(Insight.confidence >= filters.min_confidence)
    if filters.topic:
        each = _each_topic()
        wanted.append(select(each.c.value).where(each.c.value.in_(filters.topic)).exists())
    return wanted


def _each_topic() -> Any:
    return func.json_each(Insight.clusters).table_valued("value")


def copy_insights(made: Path, plain: Path) -> None:
    """The same rows under the same ids in a new file, its indexes made last, so that they are at their best."""
    unfinished = plain.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    table = Base.metadata.tables[Insight.__tablename__]
    columns = ", ".join(column.name for column in table.columns)
    sync_engine = create_engine(f"sqlite:///{unfinished}")
    indexes, table.indexes = table.indexes, set()
    try:
        table.create(sync_engine)
    finally:
        table.indexes = indexes
    with closing(sqlite3.connect(unfinished)) as connection, connection:
        connection.execute("ATTACH ? AS made", (f"{made}",))
        values = columns.replace("timestamp", _as_plain("timestamp")).replace("created_at", _as_plain("created_at"))
        connection.execute(f"INSERT INTO insights ({columns}) SELECT {values} FROM made.insights ORDER BY id")
    for index in indexes:
        index.create(sync_engine)
    sync_engine.dispose()
    unfinished.rename(plain)


def _as_plain(column: str) -> str:
    """A moment as SQLAlchemy's DateTime keeps it on SQLite; those of made insights are whole seconds."""
    return f"datetime({column} / 1000000, 'unixepoch') || '.000000'"


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8002,
    db: Annotated[Path, typer.Option(help="The SQLite file.")] = Path("plain.db"),
) -> None:
    """Serve the plain design's queries over a file that `copy_insights` has made."""
    os.environ["PLAIN_DATABASE"] = str(db)
    uvicorn.run("plain_queries:app", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)

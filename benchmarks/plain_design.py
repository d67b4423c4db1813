"""The plain design to compare with: FastAPI, an ORM session and one commit a request, SQLite as it comes."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
import uvicorn
from fastapi import Depends, FastAPI
from pydantic import BaseModel, Field
from sqlalchemy import JSON, DateTime, String, Text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Conversation(Base):
    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(64), primary_key=True, default=lambda: f"conv_{uuid4().hex}")
    text: Mapped[str] = mapped_column(Text)
    author: Mapped[str | None] = mapped_column(String(255))
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    raw_data: Mapped[dict[str, object] | None] = mapped_column(JSON)
    status: Mapped[str] = mapped_column(String(20), default="pending", index=True)  # the worker would look here
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=lambda: datetime.now(UTC))


class ConversationIn(BaseModel):
    text: str = Field(min_length=1, max_length=10_000)
    author: str | None = Field(default=None, max_length=255)
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))
    raw_data: dict[str, object] | None = None


class BulkIn(BaseModel):
    conversations: list[ConversationIn] = Field(min_length=1, max_length=500)


class Accepted(BaseModel):
    status: str = "accepted"
    conversation_id: str
    message: str = "Conversation queued for analysis"


engine = create_async_engine(f"sqlite+aiosqlite:///{os.environ.get('PLAIN_DATABASE', 'plain.db')}")
session_factory = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


async def get_session() -> AsyncGenerator[AsyncSession, None]:
    async with session_factory() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
app = FastAPI(title="Plain design", lifespan=lifespan)


@app.get("/ready")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/api/v1/conversations", status_code=202)
async def accept(item: ConversationIn, session: SessionDep) -> Accepted:
    row = Conversation(**item.model_dump())
    session.add(row)
    await session.commit()
    return Accepted(conversation_id=row.id)


@app.post("/api/v1/conversations/bulk", status_code=202)
async def accept_many(bulk: BulkIn, session: SessionDep) -> dict[str, object]:
    rows = [Conversation(**item.model_dump()) for item in bulk.conversations]
    session.add_all(rows)
    await session.commit()
    return {"status": "accepted", "accepted": len(rows), "conversation_ids": [row.id for row in rows]}


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8001,
    db: Annotated[Path, typer.Option(help="The SQLite file.")] = Path("plain.db"),
) -> None:
    """Serve the plain design; `uvicorn plain_design:app` with PLAIN_DATABASE set does the same."""
    os.environ["PLAIN_DATABASE"] = str(db)
    uvicorn.run("plain_design:app", port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    typer.run(main)

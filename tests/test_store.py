import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Row, func, select, update

import store
from database import Database
from errors import Conflict, IdempotencyMismatch, NotFound
from models import Base, Conversation, IdempotencyKey, InsightRow, InsightTopic
from schemas import Analysis, ConversationIn, Status
from store import Accepted, Claim, Completed, Failed, Idempotency, Outcome, Released, Skipped, Submission
from tests.harness import HandClock

LEASE = timedelta(seconds=60)
ANALYSIS = Analysis(
    sentiment_score=-0.65,
    clusters=("delivery_problems", "refunds"),
    confidence=0.9,
    reasoning="waits for weeks",
    summary="An order is late.",
    language="en",
)
DAY_S = 86_400


def said(text: str = "Still waiting on my order", **values: Any) -> ConversationIn:
    return ConversationIn(text=text, **values)


def keyed(key: str = "key", *, client: str = "client", body: bytes = b"{}") -> Idempotency:
    return Idempotency.of(client=client, route="/conversations", key=key, body=body)


async def accept(
    database: Database, clock: HandClock, *conversations: ConversationIn, idempotency: Idempotency | None = None
) -> list[Accepted]:
    [answer] = await accept_together(database, clock, Submission(conversations, idempotency))
    if isinstance(answer, IdempotencyMismatch):
        raise answer
    return answer


async def accept_together(
    database: Database, clock: HandClock, *submissions: Submission
) -> list[list[Accepted] | IdempotencyMismatch]:
    return await database.write(partial(store.accept, submissions=submissions, now=clock.now()))


async def claim(database: Database, clock: HandClock, *, limit: int = 100) -> list[Claim]:
    return await database.write(partial(store.claim_batch, limit=limit, now=clock.now(), lease=LEASE))


async def claim_one(database: Database, clock: HandClock) -> Claim:
    await accept(database, clock, said())
    [taken] = await claim(database, clock)
    return taken


async def save(database: Database, clock: HandClock, *outcomes: Outcome) -> list[Claim]:
    return await database.write(partial(store.save_outcomes, outcomes=outcomes, now=clock.now()))


async def row_of(database: Database, conversation_id: str) -> Row[Any]:
    statement = select(*Conversation.__table__.columns).where(Conversation.id == conversation_id)
    return await database.read(lambda session: session.execute(statement).one())


async def status_of(database: Database, conversation_id: str) -> str:
    status: str = (await row_of(database, conversation_id)).status
    return status


async def count(database: Database, table: type[Base]) -> int:
    return await database.read(lambda session: session.scalar(select(func.count()).select_from(table))) or 0


async def everything(database: Database) -> list[Sequence[Row[Any]]]:
    tables = [Conversation, InsightRow, InsightTopic]
    statements = [select(*table.__table__.columns).order_by(*table.__table__.primary_key) for table in tables]
    return await database.read(lambda session: [session.execute(statement).all() for statement in statements])


async def test_what_is_new_is_pending_and_due_at_once(database: Database, clock: HandClock) -> None:
    [outcome] = await accept(database, clock, said("Where is my parcel?", author="ann", raw_data={"likes": 3}))

    row = await row_of(database, outcome.conversation_id)
    assert (outcome.result, row.status, row.due_at, row.created_at) == ("accepted", "pending", clock.now(), clock.now())
    assert (row.text, row.author, row.raw_data) == ("Where is my parcel?", "ann", {"likes": 3})


async def test_ids_are_ordered_by_time(database: Database, clock: HandClock) -> None:
    ids: list[str] = []
    for _ in range(5):
        clock.turn(0.001)
        [outcome] = await accept(database, clock, said())
        ids.append(outcome.conversation_id)

    assert ids == sorted(ids)
    assert all(len(conversation_id) == len("conv_") + 32 for conversation_id in ids)


async def test_a_time_that_was_left_out_is_now(database: Database, clock: HandClock) -> None:
    given = datetime(2020, 1, 1, tzinfo=UTC)
    without, with_time = await accept(database, clock, said(), said(timestamp="2020-01-01"))

    assert (await row_of(database, without.conversation_id)).timestamp == clock.now()
    assert (await row_of(database, with_time.conversation_id)).timestamp == given


async def test_an_external_id_with_the_same_content_is_where_it_was(database: Database, clock: HandClock) -> None:
    [first] = await accept(database, clock, said(external_id="tweet-1"))
    clock.turn(DAY_S)  # a time that was left out stays left out
    [again] = await accept(database, clock, said(external_id="tweet-1"))

    assert again == Accepted(first.conversation_id, "duplicate")
    assert await count(database, Conversation) == 1


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"text": "Something else"}, id="another text"),
        pytest.param({"author": "bob"}, id="another author"),
        pytest.param({"timestamp": "2020-01-01"}, id="another time"),
        pytest.param({"raw_data": {"likes": 4}}, id="other raw data"),
    ],
)
async def test_an_external_id_with_other_content_conflicts(
    database: Database, clock: HandClock, changed: dict[str, Any]
) -> None:
    [first] = await accept(database, clock, said(external_id="tweet-1"))
    [other] = await accept(
        database, clock, said(**{"text": "Still waiting on my order", "external_id": "tweet-1"} | changed)
    )

    assert other == Accepted(first.conversation_id, "conflict")
    assert await count(database, Conversation) == 1


async def test_raw_data_in_another_order_is_the_same_content(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said(external_id="tweet-1", raw_data={"a": 1, "b": 2}))
    [again] = await accept(database, clock, said(external_id="tweet-1", raw_data={"b": 2, "a": 1}))

    assert again.result == "duplicate"


async def test_a_batch_is_answered_in_its_order(database: Database, clock: HandClock) -> None:
    [known] = await accept(database, clock, said("known", external_id="known"))

    outcomes = await accept(
        database,
        clock,
        said("no key"),
        said("twice", external_id="twice"),
        said("known", external_id="known"),
        said("twice", external_id="twice"),
        said("thrice", external_id="twice"),
        said("no key"),
    )

    first = outcomes[1].conversation_id
    results = [outcome.result for outcome in outcomes]
    assert results == ["accepted", "accepted", "duplicate", "duplicate", "conflict", "accepted"]
    assert [outcome.conversation_id for outcome in outcomes[2:5]] == [known.conversation_id, first, first]
    assert await count(database, Conversation) == 4


async def test_a_repeated_request_gets_the_answer_of_the_first(database: Database, clock: HandClock) -> None:
    first = await accept(database, clock, said("one"), said("two"), idempotency=keyed())
    clock.turn(DAY_S)
    again = await accept(database, clock, said("one"), said("two"), idempotency=keyed())

    assert again == first
    assert await count(database, Conversation) == 2


async def test_a_key_with_another_body_is_refused(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said(), idempotency=keyed(body=b"one"))

    with pytest.raises(IdempotencyMismatch):
        await accept(database, clock, said(), idempotency=keyed(body=b"two"))
    assert await count(database, Conversation) == 1


@pytest.mark.parametrize(
    ("later_s", "key"),
    [
        pytest.param(DAY_S + 1, keyed(body=b"another"), id="after 24 hours it is forgotten"),
        pytest.param(0, keyed(client="another"), id="another client's key is another key"),
        pytest.param(0, keyed("another"), id="another key"),
    ],
)
async def test_a_key_binds_its_client_for_a_day(
    database: Database, clock: HandClock, later_s: float, key: Idempotency
) -> None:
    await accept(database, clock, said(), idempotency=keyed())
    clock.turn(later_s)
    [again] = await accept(database, clock, said(), idempotency=key)

    assert again.result == "accepted"
    assert await count(database, Conversation) == 2


async def test_expired_keys_are_purged_and_others_kept(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said(), idempotency=keyed("old"))
    clock.turn(DAY_S)
    await accept(database, clock, said(), idempotency=keyed("new"))
    clock.turn(1)

    purge = partial(store.purge_idempotency_keys, now=clock.now())
    assert await database.write(purge) == 1
    assert await database.write(purge) == 0
    assert await count(database, IdempotencyKey) == 1


async def test_requests_that_are_stored_together_know_of_each_other(database: Database, clock: HandClock) -> None:
    first, second, third, alone = await accept_together(
        database,
        clock,
        Submission([said(external_id="tweet-1")], keyed("first")),
        Submission([said(external_id="tweet-1")], keyed("second")),
        Submission([said(external_id="tweet-1")], keyed("first")),
        Submission([said("alone")]),
    )

    assert first == third
    assert [
        [outcome.result for outcome in answer] for answer in (first, second, alone) if isinstance(answer, list)
    ] == [
        ["accepted"],
        ["duplicate"],
        ["accepted"],
    ]
    assert await count(database, Conversation) == 2


async def test_a_refused_request_does_not_hold_up_those_stored_with_it(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said(), idempotency=keyed(body=b"one"))

    before, refused, after = await accept_together(
        database,
        clock,
        Submission([said("before")]),
        Submission([said("refused")], keyed(body=b"two")),
        Submission([said("after")]),
    )

    assert (type(before), type(refused), type(after)) == (list, IdempotencyMismatch, list)
    assert await count(database, Conversation) == 3


async def test_more_external_ids_than_one_statement_takes_are_all_found(database: Database, clock: HandClock) -> None:
    batches = [[said(external_id=f"{batch}-{number}") for number in range(500)] for batch in range(3)]
    await accept_together(database, clock, *map(Submission, batches))

    again = await accept_together(database, clock, *map(Submission, batches))

    assert {outcome.result for answer in again if isinstance(answer, list) for outcome in answer} == {"duplicate"}
    assert await count(database, Conversation) == 1_500


async def test_the_longest_due_are_claimed_first(database: Database, clock: HandClock) -> None:
    ids: list[str] = []
    for _ in range(5):
        ids += [outcome.conversation_id for outcome in await accept(database, clock, said())]
        clock.turn(1)

    claims = await claim(database, clock, limit=3)

    assert [taken.conversation_id for taken in claims] == ids[:3]
    assert [taken.conversation_id for taken in await claim(database, clock)] == ids[3:]


async def test_a_claim_carries_what_the_analysis_needs(database: Database, clock: HandClock) -> None:
    [sent] = await accept(database, clock, said("Late again", author="ann", timestamp="2020-01-01"))

    [taken] = await claim(database, clock)

    assert taken == Claim(
        conversation_id=sent.conversation_id,
        lease_epoch=1,
        text="Late again",
        author="ann",
        timestamp=datetime(2020, 1, 1, tzinfo=UTC),
        created_at=clock.now(),
        attempts=0,
        rescues=0,
    )


async def test_a_claimed_row_is_left_alone_until_its_lease_ends(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    row = await row_of(database, taken.conversation_id)
    clock.turn(LEASE.total_seconds() - 0.001)

    assert (row.status, row.due_at, row.lease_epoch) == ("processing", row.created_at + LEASE, 1)
    assert await claim(database, clock) == []


async def test_a_dead_workers_claim_is_taken_over_when_its_lease_ends(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    clock.turn(LEASE.total_seconds())

    assert await claim(database, clock) == [replace(taken, lease_epoch=2, rescues=1)]


async def test_a_row_that_kills_its_owners_is_failed_as_poison_and_others_go_on(
    database: Database, clock: HandClock
) -> None:
    taken = await claim_one(database, clock)
    for _ in range(store.MAX_RESCUES):
        clock.turn(LEASE.total_seconds())
        await claim(database, clock)
    [other] = await accept(database, clock, said("harmless"))
    clock.turn(LEASE.total_seconds())

    claims = await claim(database, clock)

    row = await row_of(database, taken.conversation_id)
    assert [each.conversation_id for each in claims] == [other.conversation_id]
    assert (row.status, row.error_code, row.due_at, row.attempts) == ("failed", "poison", None, 0)


async def test_a_row_that_backs_off_is_claimed_when_it_is_due(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    await save(database, clock, Released(taken, clock.now() + timedelta(seconds=30)))

    clock.turn(29.9)
    too_early = await claim(database, clock)
    clock.turn(0.1)
    in_time = await claim(database, clock)

    assert too_early == []
    assert in_time == [replace(taken, lease_epoch=2)]  # no attempt spent, no rescue


@pytest.mark.parametrize("known_rows", [None, 1, 300], ids=["never counted", "counted when small", "counted"])
async def test_a_claim_never_takes_more_than_its_limit(
    database: Database, clock: HandClock, known_rows: int | None
) -> None:
    """Whatever plan the statistics suggest: PostgreSQL may run a subquery with a limit once for every row."""
    sent = [said(f"number {number}") for number in range(300)]
    await accept(database, clock, *sent[: known_rows or 0])
    if known_rows is not None:
        await database.write(lambda session: session.exec_driver_sql("ANALYZE").close())
    await accept(database, clock, *sent[known_rows or 0 :])

    sizes = [len(await claim(database, clock, limit=limit)) for limit in (1, 7, 50, 200, 200)]

    assert sizes == [1, 7, 50, 200, 42]


async def test_a_claim_of_a_small_table_keeps_its_limit_too(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said("first"))
    await database.write(lambda session: session.exec_driver_sql("ANALYZE").close())
    await accept(database, clock, *[said(f"number {number}") for number in range(9)])

    assert [len(await claim(database, clock, limit=3)) for _ in range(5)] == [3, 3, 3, 1, 0]


async def test_three_workers_never_claim_the_same_row(database_url: str, clock: HandClock) -> None:
    workers = [Database.connect(database_url) for _ in range(3)]
    for worker in workers:
        await worker.open()
    await accept(workers[0], clock, *[said(f"number {number}") for number in range(300)])

    claimed = await asyncio.gather(*(claim_all(worker, clock.now()) for worker in workers))

    times = Counter(conversation_id for ids in claimed for conversation_id in ids)
    assert (len(times), set(times.values())) == (300, {1})
    for worker in workers:
        await worker.close()


async def claim_all(database: Database, now: datetime) -> list[str]:
    """Ids of all that is due, a few at a time until nothing is left."""
    ids: list[str] = []
    while claims := await database.write(partial(store.claim_batch, limit=7, now=now, lease=LEASE)):
        ids += [taken.conversation_id for taken in claims]
        await asyncio.sleep(0)
    return ids


def claim_in_a_process(url: str, now: datetime) -> list[str]:
    async def work() -> list[str]:
        database = Database.connect(url)
        await database.open()
        try:
            return await claim_all(database, now)
        finally:
            await database.close()

    return asyncio.run(work())


@pytest.mark.integration
async def test_two_processes_never_claim_the_same_row(database_url: str, clock: HandClock) -> None:
    database = Database.connect(database_url)
    await database.open()
    for start in range(0, 2_000, 500):
        await accept(database, clock, *[said(f"number {start + number}") for number in range(500)])

    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(claim_in_a_process, database_url, clock.now()) for _ in range(2)]
        claimed = [await asyncio.wrap_future(run) for run in runs]

    times = Counter(conversation_id for ids in claimed for conversation_id in ids)
    assert (len(times), set(times.values())) == (2_000, {1})
    await database.close()


@pytest.mark.parametrize(
    "idempotency", [pytest.param(None, id="external_id"), pytest.param(keyed(), id="Idempotency-Key")]
)
async def test_a_race_on_one_key_stores_one_row(
    database_url: str, clock: HandClock, idempotency: Idempotency | None
) -> None:
    replicas = [Database.connect(database_url) for _ in range(4)]
    for replica in replicas:
        await replica.open()
    sent = said(external_id=None if idempotency else "tweet-1")

    racers = [accept(replica, clock, sent, idempotency=idempotency) for _ in range(8) for replica in replicas]
    outcomes = await asyncio.gather(*racers)

    assert len({outcome.conversation_id for [outcome] in outcomes}) == 1
    assert await count(replicas[0], Conversation) == 1
    for replica in replicas:
        await replica.close()


async def test_a_completed_row_has_its_insight_and_topics(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said("Late again", author="ann"))
    [taken] = await claim(database, clock)

    assert await save(database, clock, Completed(taken, ANALYSIS, "grok-4.3")) == []

    [[row], [insight], topics] = await everything(database)
    assert (row.status, row.due_at) == ("completed", None)
    assert (insight.conversation_id, insight.text, insight.author, insight.timestamp) == (
        row.id, "Late again", "ann", row.timestamp,
    )  # fmt: skip
    assert (insight.sentiment, insight.sentiment_score, insight.confidence) == ("negative", -0.65, 0.9)
    assert (insight.clusters, insight.model) == (["delivery_problems", "refunds"], "grok-4.3")
    assert {topic.topic for topic in topics} == {"delivery_problems", "refunds"}


async def test_a_topic_named_twice_counts_once(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    analysis = ANALYSIS.model_copy(update={"clusters": ("refunds", "refunds")})

    await save(database, clock, Completed(taken, analysis, "grok-4.3"))

    assert await count(database, InsightTopic) == 1


async def test_each_of_many_insights_gets_its_own_topics(database: Database, clock: HandClock) -> None:
    await accept(database, clock, *[said(f"number {number}") for number in range(200)])
    claims = await claim(database, clock, limit=200)
    analyses = [ANALYSIS.model_copy(update={"clusters": (taken.text,)}) for taken in claims]

    await save(database, clock, *[Completed(*pair, "grok-4.3") for pair in zip(claims, analyses, strict=True)])

    join = select(InsightRow.text, InsightTopic.topic).join(InsightTopic, InsightTopic.insight_id == InsightRow.id)
    pairs = await database.read(lambda session: session.execute(join).all())
    assert len(pairs) == 200
    assert all(pair.text == pair.topic for pair in pairs)


async def test_a_skipped_row_says_why(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)

    await save(database, clock, Skipped(taken, "link_only"))

    row = await row_of(database, taken.conversation_id)
    assert (row.status, row.skip_reason, row.due_at) == ("skipped", "link_only", None)


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        pytest.param("reply_invalid", 1, id="an unusable answer spends an attempt"),
        pytest.param("content_filtered", 0, id="a refused text spends none"),
    ],
)
async def test_a_failed_row_keeps_its_reason_and_the_raw_answer(
    database: Database, clock: HandClock, code: str, attempts: int
) -> None:
    taken = await claim_one(database, clock)

    await save(database, clock, Failed(taken, code, "Not JSON.", "<html>"))

    row = await row_of(database, taken.conversation_id)
    assert (row.status, row.error_code, row.error, row.raw_answer) == ("failed", code, "Not JSON.", "<html>")
    assert (row.due_at, row.attempts) == (None, attempts)


@pytest.mark.parametrize(("spent", "attempts"), [(False, 0), (True, 1)], ids=["an outage", "an unusable answer"])
async def test_a_released_row_waits_and_counts_only_bad_answers(
    database: Database, clock: HandClock, *, spent: bool, attempts: int
) -> None:
    taken = await claim_one(database, clock)
    due_at = clock.now() + timedelta(seconds=5)

    await save(database, clock, Released(taken, due_at, spent_attempt=spent))

    row = await row_of(database, taken.conversation_id)
    assert (row.status, row.due_at, row.attempts) == ("pending", due_at, attempts)


def complete(taken: Claim) -> Outcome:
    return Completed(taken, ANALYSIS, "grok-4.3")


def skip(taken: Claim) -> Outcome:
    return Skipped(taken, "link_only")


def fail(taken: Claim) -> Outcome:
    return Failed(taken, "reply_invalid", "Not JSON.")


def release(taken: Claim) -> Outcome:
    return Released(taken, taken.created_at, spent_attempt=True)


@pytest.mark.parametrize("late", [complete, skip, fail, release])
@pytest.mark.parametrize(
    "meanwhile", [None, complete, skip, fail, release], ids=lambda moved: getattr(moved, "__name__", "claimed")
)
async def test_the_fence_refuses_who_lost_its_claim(
    database: Database, clock: HandClock, late: Callable[[Claim], Outcome], meanwhile: Callable[[Claim], Outcome] | None
) -> None:
    lost = await claim_one(database, clock)
    clock.turn(LEASE.total_seconds())
    [current] = await claim(database, clock)
    if meanwhile is not None:
        await save(database, clock, meanwhile(current))
    before = await everything(database)

    refused = await save(database, clock, late(lost))

    assert refused == [lost]
    assert await everything(database) == before


async def test_of_two_claims_on_one_row_that_are_saved_together_the_newer_holds(
    database: Database, clock: HandClock
) -> None:
    """A worker whose lease ended took the row again, joined its own question, and both answers came at once."""
    older = await claim_one(database, clock)
    clock.turn(LEASE.total_seconds())
    [newer] = await claim(database, clock)

    refused = await save(database, clock, complete(older), complete(newer))

    assert refused == [older]
    assert await status_of(database, newer.conversation_id) == "completed"
    assert await count(database, InsightRow) == 1


async def test_a_refused_outcome_does_not_hold_up_the_others(database: Database, clock: HandClock) -> None:
    lost = await claim_one(database, clock)
    clock.turn(LEASE.total_seconds())
    await accept(database, clock, said("two"), said("three"))
    _, second, third = await claim(database, clock)

    refused = await save(database, clock, *map(complete, (second, lost, third)))

    assert refused == [lost]
    assert await count(database, InsightRow) == 2


async def test_an_outcome_saved_twice_makes_one_insight(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)

    first = await save(database, clock, complete(taken))
    second = await save(database, clock, complete(taken))

    assert (first, second) == ([], [taken])
    assert await count(database, InsightRow) == 1


async def test_nothing_to_save_changes_nothing(database: Database, clock: HandClock) -> None:
    assert await save(database, clock) == []


async def test_a_renewed_lease_keeps_others_away(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    clock.turn(40)
    await database.write(partial(store.renew_leases, claims=[taken], until=clock.now() + LEASE))
    clock.turn(40)

    assert await claim(database, clock) == []
    assert await save(database, clock, complete(taken)) == []


async def test_a_lost_lease_is_not_renewed(database: Database, clock: HandClock) -> None:
    lost = await claim_one(database, clock)
    clock.turn(LEASE.total_seconds())
    await claim(database, clock)
    before = await everything(database)

    await database.write(partial(store.renew_leases, claims=[lost], until=clock.now() + 2 * LEASE))

    assert await everything(database) == before


async def test_a_new_owner_of_the_queue_finds_every_claimed_row_due(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    await accept(database, clock, said("two"))
    [backing_off] = await claim(database, clock)
    await save(database, clock, Released(backing_off, clock.now() + LEASE))

    released = await database.write(partial(store.release_abandoned, now=clock.now()))

    assert released == 1
    assert await claim(database, clock) == [replace(taken, lease_epoch=2, rescues=1)]


async def test_a_failed_row_sent_back_starts_afresh(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    await save(database, clock, Failed(taken, "reply_invalid", "Not JSON.", "<html>"))
    clock.turn(1)

    await database.write(partial(store.retry_conversation, conversation_id=taken.conversation_id, now=clock.now()))

    row = await row_of(database, taken.conversation_id)
    assert (row.status, row.due_at, row.attempts, row.rescues) == ("pending", clock.now(), 0, 0)
    assert (row.error, row.error_code, row.raw_answer) == (None, None, None)
    assert await save(database, clock, complete(taken)) == [taken]  # the old claim stays lost


async def test_a_conversation_that_is_not_there_cannot_be_sent_back(database: Database, clock: HandClock) -> None:
    with pytest.raises(NotFound):
        await database.write(partial(store.retry_conversation, conversation_id="conv_none", now=clock.now()))


@pytest.mark.parametrize(
    "moved", [None, complete, skip, release], ids=["processing", "completed", "skipped", "pending"]
)
async def test_only_what_failed_can_be_sent_back(
    database: Database, clock: HandClock, moved: Callable[[Claim], Outcome] | None
) -> None:
    taken = await claim_one(database, clock)
    if moved is not None:
        await save(database, clock, moved(taken))
    before = await everything(database)

    with pytest.raises(Conflict):
        await database.write(partial(store.retry_conversation, conversation_id=taken.conversation_id, now=clock.now()))
    assert await database.write(partial(store.retry_failed, now=clock.now())) == 0
    assert await everything(database) == before


async def test_all_that_failed_is_sent_back_together(database: Database, clock: HandClock) -> None:
    await accept(database, clock, said("one"), said("two"), said("three"))
    first, second, third = await claim(database, clock)
    await save(database, clock, fail(first), fail(second), complete(third))

    assert await database.write(partial(store.retry_failed, now=clock.now())) == 2

    statuses = [await status_of(database, taken.conversation_id) for taken in (first, second, third)]
    assert statuses == [Status.PENDING, Status.PENDING, Status.COMPLETED]


async def test_an_insight_goes_with_its_conversation(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    await save(database, clock, complete(taken))

    erase = Base.metadata.tables["conversations"].delete()
    await database.write(lambda session: session.execute(erase).close())

    assert [await count(database, table) for table in (Conversation, InsightRow, InsightTopic)] == [0, 0, 0]


async def test_the_database_itself_refuses_a_second_insight(database: Database, clock: HandClock) -> None:
    taken = await claim_one(database, clock)
    await save(database, clock, complete(taken))
    reopen = update(Conversation).values(status=Status.PROCESSING, due_at=clock.now())
    await database.write(lambda session: session.execute(reopen).close())

    with pytest.raises(Exception, match=r"(?i)unique"):
        await save(database, clock, complete(taken))
    assert await count(database, InsightRow) == 1

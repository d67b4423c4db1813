"""Sent again because the answer was lost, or by many at once: stored once, and everybody is told the same id."""

import os
import random
import select
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.faults.clients import BULK, ONE, connect, exchange, request
from tests.faults.figures import Figures
from tests.faults.invariants import Query, find_broken
from tests.harness import Json, Service
from tests.nursery import Nursery

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RACERS = 32
RUN = os.urandom(4).hex()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes on one database."""

    services: Sequence[Service]
    query: Query


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Generator[Pair]:
    folder = tmp_path_factory.mktemp("again")
    url = None if request.param == "sqlite" else request.getfixturevalue("new_postgresql_url")()
    environment = {"LOG_LEVEL": "WARNING", **({"DATABASE_URL": url} if url else {})}
    services = [Service(folder, environment, nursery=nursery, log_name=f"{number}.log") for number in range(2)]

    def query_postgresql(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(str(url)) as connection:
            return connection.execute(statement.encode()).fetchall()

    try:
        for service in services:
            service.start()
        yield Pair(services, query_postgresql if url else services[0].query)
    finally:
        for service in services:
            service.kill()


@dataclass(frozen=True, slots=True)
class Race:
    """`make` says what the racer of this number sends in the round of that name; `beaten`: what a loser may hear."""

    make: Callable[[str, int], bytes]
    rows: int = 1
    beaten: int | None = None


def with_external_id(name: str, _racer: int) -> bytes:
    return request("POST", ONE, {"text": "My parcel is late", "external_id": name})


def with_external_ids(name: str, racer: int) -> bytes:
    order = random.Random(racer).sample(range(25), 25)  # crosswise, as two loaders meet
    items = [{"text": f"My parcel is late {number}", "external_id": f"{name}-{number}"} for number in order]
    return request("POST", BULK, {"conversations": items})


def with_external_id_and_other_content(name: str, racer: int) -> bytes:
    return request("POST", ONE, {"text": f"My parcel is late {racer}", "external_id": name})


def with_key(name: str, _racer: int) -> bytes:
    return request("POST", ONE, {"text": f"My parcel is late {name}"}, f"Idempotency-Key: {name}")


def with_key_in_bulk(name: str, _racer: int) -> bytes:
    items = [{"text": f"My parcel is late {name} {number}"} for number in range(25)]
    return request("POST", BULK, {"conversations": items}, f"Idempotency-Key: {name}")


def with_key_and_other_body(name: str, racer: int) -> bytes:
    return request("POST", ONE, {"text": f"My parcel is late {name} {racer}"}, f"Idempotency-Key: {name}")


RACES = [
    pytest.param(Race(with_external_id), id="external id"),
    pytest.param(Race(with_external_ids, rows=25), id="external ids in bulk"),
    pytest.param(Race(with_external_id_and_other_content, beaten=409), id="external id with other content"),
    pytest.param(Race(with_key), id="key"),
    pytest.param(Race(with_key_in_bulk, rows=25), id="key in bulk"),
    pytest.param(Race(with_key_and_other_body, beaten=422), id="key with other bodies"),
]


def ids_in(answer: Json) -> tuple[str, ...]:
    """In an order that does not depend on that of the request."""
    if "results" in answer:
        return tuple(sorted(item["conversation_id"] for item in answer["results"]))
    return (answer["conversation_id"],)


def count_rows(pair: Pair) -> int:
    [(count,)] = pair.query("SELECT count(*) FROM conversations")
    return int(count)


@pytest.mark.fault(18)
@pytest.mark.parametrize("race", RACES)
def test_a_race_of_32_stores_once_and_tells_all_the_same(pair: Pair, figures: Figures, race: Race) -> None:
    start = threading.Barrier(RACERS)
    before = count_rows(pair)
    rounds = figures.times(1, 170)  # of six races on two databases: 2,000 in full

    def run(name: str, racer: int) -> Json:
        service, sent = pair.services[racer % 2], race.make(name, racer)
        start.wait()
        return exchange(service, sent)

    with ThreadPoolExecutor(RACERS) as threads:
        for number in range(rounds):
            name = f"{RUN}-{race.make.__name__}-{number}"
            answers = list(threads.map(run, [name] * RACERS, range(RACERS)))

            statuses = {answer["http_status"] for answer in answers}
            told = {ids_in(answer) for answer in answers if answer["http_status"] == 202}
            figures.count(races=1, requests=RACERS, beaten=sum(answer["http_status"] != 202 for answer in answers))
            assert statuses <= {202, race.beaten}, answers
            assert len(told) == 1

    assert count_rows(pair) - before == rounds * race.rows
    assert find_broken(pair.query, acknowledged=[], sqlite=pair.services[0].file.exists()) == []


@pytest.mark.fault(18)
@pytest.mark.parametrize(
    ("make", "rows"), [(with_external_id, 1), (with_external_ids, 25), (with_key, 1), (with_key_in_bulk, 25)]
)
def test_a_lost_answer_is_told_again(
    pair: Pair, figures: Figures, make: Callable[[str, int], bytes], rows: int
) -> None:
    """The answer has come as far as the client's machine, which dies before reading it."""
    before = count_rows(pair)
    rounds = figures.times(2, 250)  # by four ways on two databases: 2,000 in full
    for number in range(rounds):
        sent = make(f"{RUN}-lost-{make.__name__}-{number}", 0)
        with connect(pair.services[0]) as connection:
            connection.sendall(sent)
            select.select([connection], [], [], 30)
        stored = count_rows(pair)

        again = [exchange(service, sent) for service in (*pair.services, pair.services[0])]

        figures.count(answers_lost=1)
        assert {answer["http_status"] for answer in again} == {202}
        assert len({ids_in(answer) for answer in again}) == 1
        assert count_rows(pair) == stored

    assert count_rows(pair) - before == rounds * rows

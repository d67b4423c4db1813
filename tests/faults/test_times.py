"""Time in every form, in and out, and clocks that jump: the same instant comes out, and work goes on."""

import csv
import io
import os
import random
import re
from calendar import timegm
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

import queries
import store
from batch_processor import BatchProcessor
from intake import Intake
from schemas import ConversationIn
from store import Submission
from tests.faults.figures import Figures
from tests.faults.invariants import find_broken
from tests.harness import HandClock, running_app, worked_off
from tests.scripted_analyzer import FaultyDatabase, make_processor, open_faulty

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SEED = int(os.environ.get("TIME_SEED", "0")) or random.randrange(1, 10**9)
BULK, CONVERSATIONS, INSIGHTS = "/api/v1/conversations/bulk", "/api/v1/conversations", "/api/v1/insights"
SECOND = 1_000_000  # in microseconds since 1970, the measure of an instant here
DAY = 86_400 * SECOND
FIRST, LAST = -62_135_596_800 * SECOND, 253_402_300_800 * SECOND  # of the year 1, after the year 9999
# Around these seconds of UTC something happens: zones change their hours, leap days, the epoch, 2038, year ends.
EVENTFUL = (0, -1, 2**31, 951_782_400, 1_772_953_200, 1_774_746_000, 1_792_890_000, 1_793_512_800, 1_798_761_600)
OFFSETS_MIN = (0, 60, -60, 330, 345, 765, 840, -210, -720, 1, -1, 1439, -1439)


def draw_instant(dice: random.Random) -> int:
    kind = dice.random()
    if kind < 0.4:
        return dice.choice(EVENTFUL) * SECOND + dice.choice([-1, 0, 1, dice.randint(-DAY, DAY)])
    return dice.randint(FIRST + 2 * DAY, LAST - 2 * DAY) if kind < 0.6 else dice.randint(0, 2**31 * SECOND)


def written(instant: int, dice: random.Random) -> tuple[str, int]:
    """A form of ISO 8601 that says an instant, by arithmetic alone; and the instant, if the form is less fine."""
    offset_min = dice.choice(OFFSETS_MIN)
    fine = dice.choice([1, 1, 1_000, SECOND, 60 * SECOND])
    instant -= instant % fine
    days, rest = divmod(instant + offset_min * 60 * SECOND, DAY)
    seconds, micros = divmod(rest, SECOND)
    hour, minute, second = seconds // 3600, seconds // 60 % 60, seconds % 60
    basic = dice.random() < 0.2
    dash, colon = ("", "") if basic else ("-", ":")
    clock = f"{hour:02}{colon}{minute:02}"
    if fine < 60 * SECOND or dice.random() < 0.5:
        clock += f"{colon}{second:02}"
        if fine < SECOND:
            clock += dice.choice(".,") + (
                f"{micros:06}" if fine == 1 or dice.random() < 0.5 else f"{micros // 1000:03}"
            )
    separator = "T" if basic else dice.choice("TTT ")
    return f"{day_in_words(days, dash, dice)}{separator}{clock}{zone_in_words(offset_min, colon, dice)}", instant


def day_in_words(days: int, dash: str, dice: random.Random) -> str:
    year, month, day = civil(days)
    if dice.random() < 0.1 and 2 < year < 9998:  # ISO's week date; Monday is day 1, and the week's year is Thursday's
        weekday = (days + 3) % 7 + 1
        thursday = days - weekday + 4
        week_year = civil(thursday)[0]
        week = (thursday - days_of(week_year)) // 7 + 1
        return f"{week_year:04}{dash}W{week:02}{dash}{weekday}"
    return f"{year:04}{dash}{month:02}{dash}{day:02}"


def zone_in_words(offset_min: int, colon: str, dice: random.Random) -> str:
    if offset_min == 0:
        return dice.choice(["Z", "", f"+00{colon}00", "+00"])  # without an offset it is UTC
    sign, hours, minutes = "-" if offset_min < 0 else "+", *divmod(abs(offset_min), 60)
    return f"{sign}{hours:02}" if minutes == 0 and dice.random() < 0.3 else f"{sign}{hours:02}{colon}{minutes:02}"


def civil(days: int) -> tuple[int, int, int]:
    """Year, month and day, that many days after 1970-01-01. Source: howardhinnant.github.io/date_algorithms.html"""
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year_of_era + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def days_of(year: int) -> int:
    return timegm((year, 1, 1, 0, 0, 0)) // 86_400


_SHOWN = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{6}))?(?:Z|\+00:00)")


def instant_of(shown: str) -> int:
    """What an answer shows is always UTC, in one form."""
    found = _SHOWN.fullmatch(shown)
    assert found is not None, shown
    year, month, day, hour, minute, second, micros = (int(part or 0) for part in found.groups())
    return timegm((year, month, day, hour, minute, second)) * SECOND + micros


async def shown_times(client: httpx2.AsyncClient, ids: list[str]) -> dict[str, dict[str, str]]:
    """By answer, by conversation: every place where a client can read the time of one."""
    shown: dict[str, dict[str, str]] = {name: {} for name in ("pages", "jsonl", "csv", "one", "list")}
    cursor: str | None = ""
    while cursor is not None:
        page = (await client.get(INSIGHTS, params={"limit": 1000} | ({"cursor": cursor} if cursor else {}))).json()
        shown["pages"] |= {one["conversation_id"]: one["timestamp"] for one in page["insights"]}
        cursor = page["metadata"]["next_cursor"]
    lines = (await client.get(INSIGHTS, params={"format": "jsonl"})).text.splitlines()
    shown["jsonl"] = {one["conversation_id"]: one["timestamp"] for one in map(orjson.loads, lines)}
    rows = csv.DictReader(io.StringIO((await client.get(INSIGHTS, params={"format": "csv"})).text))
    shown["csv"] = {row["conversation_id"]: row["timestamp"] for row in rows}
    for one in ids[::10]:
        shown["one"][one] = (await client.get(f"{CONVERSATIONS}/{one}")).json()["timestamp"]
    listed = (await client.get(CONVERSATIONS, params={"limit": 1000})).json()["conversations"]
    shown["list"] = {one["conversation_id"]: one["timestamp"] for one in listed}
    return shown


@pytest.mark.fault(17)
async def test_an_instant_comes_out_as_it_went_in(tmp_path: Path, figures: Figures) -> None:
    print(f"TIME_SEED={SEED}")  # shown when it fails: the same instants again
    dice = random.Random(SEED)
    wanted = figures.times(300, 5_000)
    sent = [written(draw_instant(dice), dice) for _ in range(wanted)]
    async with running_app(tmp_path) as client:
        ids: list[str] = []
        for start in range(0, wanted, 500):
            items = [{"text": "late parcel", "timestamp": text} for text, _ in sent[start : start + 500]]
            answer = (await client.post(BULK, json={"conversations": items})).json()
            refused = [
                (sent[start + at], one) for at, one in enumerate(answer["results"]) if not one["conversation_id"]
            ]
            assert refused == []
            ids += [result["conversation_id"] for result in answer["results"]]
        await worked_off(client, within_s=600)
        shown = await shown_times(client, ids)
        for (text, instant), one in list(zip(sent, ids, strict=True))[::20]:
            found = await client.get(INSIGHTS, params={"start_time": text, "limit": 1000, "end_time": after(instant)})
            assert one in {insight["conversation_id"] for insight in found.json()["insights"]}, text
            assert instant_of(found.json()["metadata"]["start_time"]) == instant
            figures.count(found_by_time=1)

    instants = dict(zip(ids, (instant for _, instant in sent), strict=True))
    read = [(one, name, text) for name, texts in shown.items() for one, text in texts.items()]
    figures.count(instants=wanted, read=len(read))
    figures.count(differences=sum(instant_of(text) != instants[one] for one, _, text in read))
    assert figures.counts["differences"] == 0, [case for case in read if instant_of(case[2]) != instants[case[0]]][:3]
    assert len(shown["pages"]) == len(shown["jsonl"]) == len(shown["csv"]) == wanted


def after(instant: int) -> str:
    year, month, day = civil((instant + 1) // DAY)
    seconds, micros = divmod((instant + 1) % DAY, SECOND)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micros:06}"
    return f"{year:04}-{month:02}-{day:02}T{clock}Z"


JUMPS_S = (-86_400, -3_600, -90, -1, 1, 30, 90, 3_600, 90_000, 400 * 86_400)


@pytest.mark.fault(17)
async def test_a_clock_that_jumps_loses_and_doubles_nothing(
    sqlite_url: str, clock: HandClock, figures: Figures
) -> None:
    """Set forth, all goes on at once. Set back, what comes is read at once, and what waited when its time has come."""
    dice = random.Random(SEED)
    ids: list[str] = []
    async with open_faulty(sqlite_url) as database:
        intake = Intake(database, now=clock.now, on_accepted=lambda _count: None)
        processor = make_processor(database, clock)
        for number in range(figures.times(15, 500)):
            texts = [f"parcel {number} {at} is late" for at in range(3)]
            accepted = await intake.accept([ConversationIn(text=text) for text in texts])
            fresh = [one.conversation_id for one in accepted]
            await turn(processor)
            statuses = [await status_of(database, one) for one in fresh]
            assert statuses == ["completed"] * 3
            ids += fresh
            waiting = await intake.accept([ConversationIn(text=f"waiting {number}")])
            ids += [one.conversation_id for one in waiting]
            jump_s = dice.choice(JUMPS_S)
            clock.turn(jump_s)
            await turn(processor)
            if jump_s > 0:
                assert await status_of(database, ids[-1]) == "completed"
            figures.count(jumps=1, back=jump_s < 0)
        clock.turn(sum(abs(jump_s) for jump_s in JUMPS_S) * 1_000)
        while await database.read(queries.queue_depth):
            await turn(processor)

        def look(session: Any) -> list[str]:
            def query(statement: str) -> list[tuple[Any, ...]]:
                return [tuple(row) for row in session.exec_driver_sql(statement)]

            return find_broken(query, acknowledged=ids)

        assert await database.read(look) == []
        assert {await status_of(database, one) for one in ids} == {"completed"}


async def turn(processor: BatchProcessor) -> None:
    await processor.run_once()
    await processor.drain()


async def status_of(database: FaultyDatabase, one: str) -> str:
    row = await database.read(partial(queries.get_conversation, conversation_id=one))
    return str(dict(row)["status"])


@pytest.mark.fault(17)
@pytest.mark.parametrize("jump_s", [-3_600, -1, 3_600], ids=["an hour back", "a second back", "an hour forth"])
async def test_an_idempotency_key_holds_for_a_day_whatever_the_clock_does(
    sqlite_url: str, clock: HandClock, figures: Figures, jump_s: int
) -> None:
    submission = Submission(
        [ConversationIn(text="late parcel")], store.Idempotency.of(client="c", route="/", key="k", body=b"{}")
    )
    async with open_faulty(sqlite_url) as database:
        [first] = await database.write(partial(store.accept, submissions=[submission], now=clock.now()))
        clock.turn(jump_s)
        await database.write(partial(store.purge_idempotency_keys, now=clock.now()))
        [again] = await database.write(partial(store.accept, submissions=[submission], now=clock.now()))

    figures.count(sent_again=1)
    assert again == first

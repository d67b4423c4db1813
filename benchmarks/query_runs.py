"""What `query_bench.py` asks: insights by any filters, a walk by cursor, trends, words, authors, topics."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, product, repeat
from typing import Any

from benchmarks import query_paths
from benchmarks.made_texts import known_counts
from benchmarks.query_client import Asker, Timings, ask_in_turn, until

LARGE, SMALL, PLAIN = "large", "small", "plain"
FLOOR = "no query at all (/health)"
FILTERED, FIRST_PAGE, FAR_PAGE = "insights by any filters", "page 1", "page 1,000 by cursor"
FIRST_OF_TOPIC, FAR_OF_TOPIC = "page 1 of a topic", "page 1,000 of a topic by cursor"
BY_COUNT, BY_GROUP = "a total, beside COUNT", "trends, beside GROUP BY"
BY_OFFSET, BY_OFFSET_OF_TOPIC = "page 1,000, beside OFFSET", "page 1,000 of a topic, beside OFFSET"
ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata")
WALKED_TOPIC = "delivery_problems"
FAR = 1_000
TOPIC_TABLE = "the table of topics"
COUNTED_FACETS, AUTHOR_FACET = "a page with facet=topic,sentiment", "a page with facet=author"


@dataclass(frozen=True, slots=True)
class Amounts:
    """How often each kind is asked, and how many rounds of finishes; what is slow ends early, after `most_s`."""

    filtered: int
    repeats: int
    trends: int
    searches: int
    plain: int
    finishes: int
    most_s: float


@dataclass(slots=True)
class Answers:
    """How long each server took for each kind, what was compared with a recount, and what is not there to ask."""

    kinds: dict[str, dict[str, Timings]] = field(default_factory=dict[str, dict[str, Timings]])
    compared: int = 0
    wrong: list[str] = field(default_factory=list[str])
    not_there: list[str] = field(default_factory=list[str])

    def add(self, kind: str, timings: dict[str, Timings]) -> None:
        self.kinds.setdefault(kind, {}).update(timings)

    def compare(self, path: str, found: object, expected: object) -> None:
        self.compared += 1
        if found != expected:
            self.wrong.append(f"{path}: {str(found)[:80]}, but a recount says {str(expected)[:80]}")


def trends_kind(zone: str) -> str:
    return f"trends over 90 days, {zone}"


def word_kind(count: int) -> str:
    return f"q=, {count:,} matches"


def author_kind(count: int) -> str:
    return f"author=, {count:,} matches"


async def warm_up(askers: Sequence[Asker], *, questions: int) -> None:
    """The files come into the system's cache, and every statement is compiled once."""
    dice = random.Random("warm up")
    await ask_in_turn(askers, islice(query_paths.draw_insights(dice), questions), most_s=20)
    await ask_in_turn(askers, islice(query_paths.draw_trends(dice, zone="UTC"), 4), most_s=20)


async def ask_for_little(askers: Sequence[Asker], answers: Answers, amounts: Amounts) -> None:
    """What an answer takes that reads next to nothing: a machine busy with other work shows in its p99."""
    answers.add(FLOOR, await ask_in_turn(askers, repeat("/health", amounts.filtered), most_s=amounts.most_s / 10))


async def ask_filtered(askers: Sequence[Asker], answers: Answers, amounts: Amounts, *, seed: int) -> None:
    paths = islice(query_paths.draw_insights(random.Random(seed)), amounts.filtered)
    answers.add(FILTERED, await ask_in_turn(askers, paths, most_s=amounts.most_s))


async def ask_pages(askers: Sequence[Asker], answers: Answers, amounts: Amounts) -> None:
    """Page 1 and page 1,000 in turn, after a walk to it; a small database has its last full page instead."""
    for near, far, filters in ((FIRST_PAGE, FAR_PAGE, []), (FIRST_OF_TOPIC, FAR_OF_TOPIC, [("topic", WALKED_TOPIC)])):
        near_path = query_paths.insights_path(*filters)
        far_paths = [(await _walk(asker, filters, most_s=amounts.most_s))[0] for asker in askers]
        for _, (asker, far_path) in product(range(amounts.repeats), zip(askers, far_paths, strict=True)):
            for kind, path in ((near, near_path), (far, far_path)):
                times = answers.kinds.setdefault(kind, {}).setdefault(asker.name, Timings())
                times.add(await asker.ask(path), path)


async def _walk(asker: Asker, filters: query_paths.Parameters, *, most_s: float) -> tuple[str, int]:
    """The path of page 1,000 and how many come before it, found by following the cursor; or of the last full one.

    Raises: RuntimeError, when it takes longer than `most_s`.
    """
    paths = [query_paths.insights_path(*filters)]
    for path in until(paths, most_s=most_s):  # which grows as it is walked
        if len(paths) == FAR:
            return paths[-1], FAR - 1
        cursor = (await asker.ask(path)).json()["metadata"]["next_cursor"]
        if cursor is None:  # the last page, which may be short
            full = paths[:-1] or paths
            return full[-1], len(full) - 1
        paths.append(query_paths.insights_path(*filters, ("cursor", cursor)))
    raise RuntimeError(f"after {most_s:g} s a walk of the {asker.name} database was at page {len(paths)} of {FAR}")


async def ask_trends(askers: Sequence[Asker], answers: Answers, amounts: Amounts, *, seed: int) -> None:
    for zone in ZONES:
        paths = islice(query_paths.draw_trends(random.Random(seed), zone=zone), amounts.trends)
        answers.add(trends_kind(zone), await ask_in_turn(askers, paths, most_s=amounts.most_s / len(ZONES)))


async def ask_for_words_and_authors(
    askers: Sequence[Asker], answers: Answers, amounts: Amounts, *, rows: int, seed: int
) -> None:
    """Just so many matches among more or fewer rows: what it costs should follow the matches alone."""
    for count in known_counts(rows):
        words = query_paths.draw_words(random.Random(seed), count=count)
        await _ask_known(askers, answers, word_kind(count), islice(words, amounts.searches), count)
        authors = repeat(query_paths.author_path(count), amounts.searches)
        await _ask_known(askers, answers, author_kind(count), authors, count)


async def _ask_known(askers: Sequence[Asker], answers: Answers, kind: str, paths: Iterator[str], count: int) -> None:
    for path in islice(paths, 1):
        for asker in askers:
            answer = await asker.try_to_ask(path)
            if answer.status != 200:
                answers.not_there.append(kind)
                return
            answers.compare(path, answer.json()["metadata"]["total_count"], count)
    answers.add(kind, await ask_in_turn(askers, paths))


async def ask_for_topics(askers: Sequence[Asker], answers: Answers, amounts: Amounts) -> None:
    """The table of topics, and the facets of a page: authors are counted row by row, the others by counters."""
    counted, authors = (query_paths.insights_path(("facet", facets)) for facets in ("topic,sentiment", "author"))
    for kind, path in ((TOPIC_TABLE, query_paths.TOPICS), (COUNTED_FACETS, counted), (AUTHOR_FACET, authors)):
        statuses = {(await asker.try_to_ask(path)).status for asker in askers}
        if statuses == {200}:
            answers.add(kind, await ask_in_turn(askers, repeat(path, amounts.searches)))
        else:
            answers.not_there.append(kind)


async def ask_beside_plain(askers: Sequence[Asker], answers: Answers, amounts: Amounts, *, seed: int) -> None:
    """The same questions to the plain design, in turn; it counts row by row, so both must say the same."""
    large, plain = askers
    most_s = amounts.most_s / 2
    filtered = ((path, path) for path in query_paths.draw_insights(random.Random(seed)))
    await _ask_both(large, plain, answers, BY_COUNT, islice(filtered, amounts.plain), most_s=most_s)
    trends = ((path, path) for path in query_paths.draw_trends(random.Random(seed), zone="UTC"))
    await _ask_both(large, plain, answers, BY_GROUP, islice(trends, amounts.plain), most_s=most_s)
    for kind, filters in ((BY_OFFSET, []), (BY_OFFSET_OF_TOPIC, [("topic", WALKED_TOPIC)])):
        far_path, pages_before = await _walk(large, filters, most_s=amounts.most_s)
        offset = ("offset", str(pages_before * query_paths.PAGE_ROWS))
        pairs = repeat((far_path, query_paths.insights_path(*filters, offset)), amounts.plain)
        await _ask_both(large, plain, answers, kind, pairs, most_s=most_s)


async def _ask_both(
    large: Asker, plain: Asker, answers: Answers, kind: str, paths: Iterable[tuple[str, str]], *, most_s: float
) -> None:
    timings = {LARGE: Timings(), PLAIN: Timings()}
    for ours, theirs in until(paths, most_s=most_s):
        found, expected = await large.ask(ours), await plain.ask(theirs)
        timings[LARGE].add(found, ours)
        timings[PLAIN].add(expected, theirs)
        answers.compare(ours, gist(found.json()), gist(expected.json()))
    answers.add(kind, timings)


def gist(answer: dict[str, Any]) -> object:
    """What both designs must agree on: the total and the rows of a page, or the count of every bucket that has any."""
    if "buckets" in answer:
        return [bucket["count"] for bucket in answer["buckets"] if bucket["count"]]
    total = answer["metadata"]["total_count"] if "metadata" in answer else answer["total_count"]
    return total, [insight["conversation_id"] for insight in answer["insights"]]

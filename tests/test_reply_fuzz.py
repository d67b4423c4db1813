"""Ten thousand spoilt answers and a corpus of unusable ones: no result lands on another text, none is made up."""

from collections.abc import Iterator, Mapping
from random import Random

import pytest

from prompts import Prompt, Reply
from tests.fake_xai_answers import score_of
from tests.spoilt_answers import FOREIGN, GOOD, ITEM_ID, UNUSABLE, spoilt_answer

pytestmark = pytest.mark.unit

PROMPT = Prompt({"delivery_problems": "Late or lost.", "billing_issues": "Money.", "other": "Anything else."})
BATCHES, ANSWERS_PER_BATCH = 20, 500


def packs(seed: int) -> Iterator[tuple[dict[int, str], str]]:
    random = Random(seed)
    for _ in range(ANSWERS_PER_BATCH):
        ids = random.sample(range(100_000, FOREIGN), random.randint(2, 50))
        texts = {item_id: f"text {random.random()}" for item_id in ids}
        yield texts, spoilt_answer(random, texts)


def read(content: str, texts: Mapping[int, str]) -> Reply:
    """As the client does it: what is no answer is every item's problem."""
    try:
        return PROMPT.read_reply(content, expected=list(texts))
    except ValueError as error:
        return Reply({}, dict.fromkeys(texts, str(error)))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_spoilt_answer_puts_a_result_on_another_text(batch: int) -> None:
    sent_count = accepted_count = 0
    for texts, content in packs(batch):
        reply = read(content, texts)

        crossed = [one for one, analysis in reply.analyses.items() if analysis.sentiment_score != score_of(texts[one])]
        assert not crossed, content
        assert sorted([*reply.analyses, *reply.problems]) == sorted(texts)
        sent_count += len(texts)
        accepted_count += len(reply.analyses)

    assert accepted_count > sent_count / 3, "what was left whole in the answers is read"


@pytest.mark.parametrize("content", UNUSABLE, ids=lambda content: ascii(content)[:60])
def test_nothing_is_made_of_an_unusable_answer(content: str) -> None:
    reply = read(content, {ITEM_ID: "late parcel"})

    assert not reply.analyses
    assert set(reply.problems) == {ITEM_ID}


@pytest.mark.parametrize("content", [None, 7, 0.5, True, [], [{"text": GOOD}], {}, GOOD.encode()])
def test_an_answer_that_is_no_text_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match="the answer is not text"):
        PROMPT.read_reply(content, expected=[ITEM_ID])

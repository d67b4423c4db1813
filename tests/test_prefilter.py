import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefilter import why_skip
from schemas import SkipReason

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("https://t.co/abc123", SkipReason.LINK_ONLY, id="a link"),
        pytest.param("HTTP://EXAMPLE.COM www.example.com", SkipReason.LINK_ONLY, id="links in any case"),
        pytest.param("@AppleSupport https://t.co/abc123", SkipReason.LINK_ONLY, id="a link and a mention"),
        pytest.param("@AppleSupport", SkipReason.MENTION_ONLY, id="a mention"),
        pytest.param("@AppleSupport @115858 ...", SkipReason.MENTION_ONLY, id="mentions and dots"),
        pytest.param("12345", SkipReason.DIGITS_ONLY, id="digits"),
        pytest.param("@AppleSupport 1. 2. 3.", SkipReason.DIGITS_ONLY, id="digits beside a mention"),
        pytest.param("#2024", SkipReason.DIGITS_ONLY, id="a hashtag of digits"),
        pytest.param("٣٤٥", SkipReason.DIGITS_ONLY, id="Arabic digits"),
        pytest.param("?!...", SkipReason.PUNCTUATION_ONLY, id="punctuation"),
        pytest.param("- - -", SkipReason.PUNCTUATION_ONLY, id="dashes"),
        pytest.param("。。。", SkipReason.PUNCTUATION_ONLY, id="Chinese full stops"),
        pytest.param("", SkipReason.EMPTY, id="nothing"),
        pytest.param(" \t\n\u00a0", SkipReason.EMPTY, id="blanks"),
        pytest.param("\u200b\u200d\ufeff\u2060", SkipReason.EMPTY, id="zero-width characters"),
        pytest.param("\u202e\u2066", SkipReason.EMPTY, id="direction marks"),
        pytest.param("\x00\x07", SkipReason.EMPTY, id="control characters"),
        pytest.param("\u3164\u2800", SkipReason.EMPTY, id="letters and symbols that show nothing"),
    ],
)
def test_a_text_that_says_nothing_is_skipped_with_its_reason(text: str, reason: SkipReason) -> None:
    assert why_skip(text) is reason


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("thanks!", id="one word"),
        pytest.param("a", id="one letter"),
        pytest.param("@AppleSupport still broken", id="words after a mention"),
        pytest.param("https://t.co/abc why?", id="words after a link"),
        pytest.param("#fail", id="a hashtag"),
        pytest.param("😡", id="an emoji"),
        pytest.param("👍🏽", id="an emoji with a skin colour"),
        pytest.param("👨‍👩‍👧", id="an emoji joined of several"),
        pytest.param("🇩🇪", id="a flag"),
        pytest.param("❤️", id="a heart with its variation mark"),
        pytest.param("@AppleSupport 😡😡😡", id="emoji after a mention"),
        pytest.param(":(", id="an emoticon"),
        pytest.param("@AppleSupport :-)", id="an emoticon after a mention"),
        pytest.param("<3", id="a heart of signs"),
        pytest.param("(:", id="an emoticon the other way round"),
        pytest.param("12345 :'(", id="an emoticon after digits"),
        pytest.param("注文が届かない", id="Japanese"),
        pytest.param("طلبي متأخر", id="Arabic"),
        pytest.param("заказ не пришёл", id="Russian"),
        pytest.param("ऑर्डर", id="Hindi"),
        pytest.param("배송", id="Korean"),
        pytest.param("ช้า", id="Thai"),
        pytest.param("w\u200bh\u200by", id="a word with zero-width characters in it"),
        pytest.param("\U0001d4eb\U0001d4ea\U0001d4ed", id="letters from mathematics"),
    ],
)
def test_a_text_that_says_something_is_read(text: str) -> None:
    assert why_skip(text) is None


@given(st.text())
def test_any_string_at_all_gets_an_answer(text: str) -> None:
    assert why_skip(text) in {None, *SkipReason}
    assert why_skip(f"{text} late") is None


def test_a_hostile_text_is_read_in_linear_time() -> None:
    for piece in ("@", ":-", "(-", "http://", "www.", "\u200b", "1"):
        why_skip(piece * 5_000)

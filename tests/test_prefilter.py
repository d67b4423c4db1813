"""What the prefilter keeps from Grok: texts that say nothing, courtesies, and never a complaint."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_analyzer import LocalAnalyzer
from prefilter import Ask, Keep, LocalStage, Prefilter, Skip, why_skip
from schemas import Analysis, Sentiment, SkipReason
from topics import load_topics, topic_patterns

pytestmark = pytest.mark.unit

LOCAL = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))  # 5 ms, and no test can change it
SURE = "@AcmeHelp my parcel is three weeks late and nobody answers, worst service ever"  # negative at .95

# None of these may be skipped or kept for saying little. Written for this project.
COMPLAINTS = """
thanks for nothing|thanks a lot|thanks a bunch|thanks...|thanks?|"thanks"|no thanks|thanks, again|thanks 🙄
thanks 🙃|thanks 👎|thanks :(|thanks @AcmeHelp https://t.co/a1|👍 https://t.co/a1|thank you 😡
thank you so not much|many thanks for the delay|THANKS|thanks thanks thanks|thanks!!!!|ok thanks bye|great
Great.|great. just great.|great, again|oh great|perfect.|super.|great, not|GREAT THANKS|great service, thanks
ok so my bag is lost|ok and?|ok...|ok ok ok|okay but when|ok?|yes but no|yes it broke|yeah right|yeah sure
done with you|done waiting|done?|so done|sent back broken|sent twice|got it broken|will do nothing|noted...
hello?|HELLO|hello!!!|hello hello|hi, refund|hey...|not ok|not great|no|no!!|No.|nope|never|nothing
still nothing|lol|lol no|haha|wow|bye|sigh|meh|ugh|k|why|same|same 😭|help|lies|late|broken|fail|#fail
#thanksfornothing|wtf|fml|smh|f***|****|@#$%!|$#@!|👎|👎👎👎|😡|🤬|😤|😭|😢|😠|🙄|🙃|🤡|💩|💔|😒|😂|👏👏👏|🖕
👍👎|❤️💔|\U0001fae8|\U0001fae9|\ue059|:(|:-(|:'(|:/|:@|>:(|</3|-_-|>_<|-.-|):|0/10|-5/10|0 / 10|1/5
2 out of 5|0.5/5|0\u204410|\u0660/\u0661\u0660|@AcmeHelp 0/10 https://t.co/a1|1*|0%|-1|+1|+1!|$450|450€|404
503!|★☆☆☆☆|1 ⭐|https://t.co/a:(|https://t.co/a😡|https://t.co/a遅い|@AcmeHelp遅い|@AcmeHelp😡
@AcmeHelp -_- https://t.co/a1|gracias por nada|no gracias|merci pour rien|non merci|danke für nichts|nein danke
super, danke für nichts|obrigado por nada|grazie di niente|no grazie|شكرا على لا شيء|لا شكرا|धन्यवाद नहीं|नहीं
nein|non|não|لا|genial|ja klar|sí claro|oui mais non|va bene però
"""

COURTESIES = """
thanks|Thanks!|thanks.|thank you so much|Thank you!!|thx|THX|@AcmeHelp thanks :)|thanks 👍🏽|thanks ❤️|#thanks
ok|OK|Okay, thanks!|yes|Yes!|@AcmeHelp Done.|sent|DM sent|got it, thanks|will do!|hello|@AcmeHelp hi
good morning|great, thanks!|perfect thank you|👍|👍👍👍|🙏🏿|❤️|@AcmeHelp 😊🎉|:)|:-D|<3|gracias
¡Muchas gracias!|vale, gracias|hola|merci beaucoup|d\u2019accord, merci|bonjour|danke|Vielen Dank!|super, danke
ja, danke|obrigada|muito obrigado!|bom dia|grazie mille|sì, grazie|va bene|شكرا|شكراً جزيلاً|مرحبا|धन्यवाद
नमस्ते|ठीक है, धन्यवाद
"""


@pytest.fixture
def prefilter() -> Prefilter:
    return Prefilter(LOCAL, cascade_confidence=None, audit_share=0.0)


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
        pytest.param("24/02/2015", SkipReason.DIGITS_ONLY, id="a date"),
        pytest.param("+1 555 010 9999", SkipReason.DIGITS_ONLY, id="a phone number"),
        pytest.param("(555) 010-9999", SkipReason.DIGITS_ONLY, id="a phone number with an area"),
        pytest.param("40412", SkipReason.DIGITS_ONLY, id="a number that begins as a status does"),
        pytest.param("12:30 - 13:00", SkipReason.DIGITS_ONLY, id="times"),
        pytest.param("https://t.co/abc123…", SkipReason.LINK_ONLY, id="a link cut off"),
        pytest.param("https://example.com/a?b=1&c=%20#d.", SkipReason.LINK_ONLY, id="a link with signs in it"),
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


@pytest.mark.parametrize("text", COMPLAINTS.replace("\n", "|").strip("|").split("|"))
def test_a_complaint_always_reaches_grok(prefilter: Prefilter, text: str) -> None:
    named = text if "@" in text else f"@AcmeHelp {text}"

    assert prefilter.sort("conv_1", text) == Ask()
    assert prefilter.sort("conv_1", named) == Ask()


@pytest.mark.parametrize(
    "text",
    COURTESIES.replace("\n", "|").strip("|").split("|"),
)
def test_a_courtesy_keeps_the_local_answer(prefilter: Prefilter, text: str) -> None:
    verdict = prefilter.sort("conv_1", text)

    assert isinstance(verdict, Keep)
    assert verdict.stage is LocalStage.LITTLE_TO_READ


@given(st.text())
def test_what_is_kept_is_never_called_negative(text: str) -> None:
    prefilter = Prefilter(LOCAL, cascade_confidence=None, audit_share=0.0)

    for courtesy in (text, f"{text} thanks", f"hi {text}", f"👍{text}"):
        verdict = prefilter.sort("conv_1", courtesy)

        assert not (isinstance(verdict, Keep) and verdict.analysis.sentiment is Sentiment.NEGATIVE)


def test_the_local_answer_is_kept_whole(prefilter: Prefilter) -> None:
    local = LOCAL.analyze("thanks!")

    verdict = prefilter.sort("conv_1", "thanks!")

    assert isinstance(verdict, Keep)
    assert verdict.analysis == Analysis(
        sentiment_score=local.sentiment_score,
        clusters=local.clusters,
        confidence=local.confidence,
        reasoning=local.reasoning,
        summary=local.summary,
        language=local.language,
    )


def test_nothing_to_read_is_skipped_with_or_without_a_local_analyzer(prefilter: Prefilter) -> None:
    alone = Prefilter(None, cascade_confidence=None, audit_share=0.0)

    assert prefilter.sort("conv_1", "@AcmeHelp") == alone.sort("conv_1", "@AcmeHelp") == Skip(SkipReason.MENTION_ONLY)


def test_without_a_local_analyzer_whatever_can_be_read_is_asked() -> None:
    prefilter = Prefilter(None, cascade_confidence=0.1, audit_share=0.0)

    assert [prefilter.sort("conv_1", text) for text in ("thanks!", "👍", SURE)] == [Ask(), Ask(), Ask()]


def test_the_cascade_keeps_an_answer_that_is_sure_enough() -> None:
    confidence = LOCAL.analyze(SURE).confidence
    reached = Prefilter(LOCAL, cascade_confidence=confidence, audit_share=0.0)
    missed = Prefilter(LOCAL, cascade_confidence=confidence + 0.01, audit_share=0.0)

    kept = reached.sort("conv_1", SURE)

    assert isinstance(kept, Keep)
    assert kept.stage is LocalStage.CASCADE
    assert missed.sort("conv_1", SURE) == Ask()


def test_the_cascade_is_off_unless_it_is_asked_for(prefilter: Prefilter) -> None:
    assert prefilter.sort("conv_1", SURE) == Ask()


@pytest.mark.parametrize("text", ["https://t.co/a1", "thanks!", SURE], ids=["skipped", "little to read", "cascade"])
def test_the_audit_asks_and_says_what_would_have_been_done(text: str) -> None:
    without = Prefilter(LOCAL, cascade_confidence=0.9, audit_share=0.0)
    audited = Prefilter(LOCAL, cascade_confidence=0.9, audit_share=1.0)

    verdict = audited.sort("conv_1", text)

    assert isinstance(verdict, Ask)
    assert verdict.audit_of == without.sort("conv_1", text)


def test_what_grok_reads_anyway_is_no_audit() -> None:
    audited = Prefilter(LOCAL, cascade_confidence=None, audit_share=1.0)

    assert audited.sort("conv_1", "my bag is lost") == Ask()


def _ids(count: int, *, start_ms: int, step_ms: int) -> list[str]:
    random = Random(7)
    return [f"conv_{start_ms + number * step_ms:012x}{random.getrandbits(80):020x}" for number in range(count)]


@pytest.mark.parametrize("step_ms", [0, 1, 40, 86_400_000])
def test_the_audit_takes_its_share_however_the_ids_lie_in_time(step_ms: int) -> None:
    prefilter = Prefilter(None, cascade_confidence=None, audit_share=0.02)

    ids = _ids(20_000, start_ms=1_763_000_000_000, step_ms=step_ms)
    share = sum(isinstance(prefilter.sort(each, "@AcmeHelp"), Ask) for each in ids) / len(ids)

    assert share == pytest.approx(0.02, abs=0.004)


def test_a_conversation_gets_the_same_verdict_twice_and_from_another_worker() -> None:
    one, other = (Prefilter(LOCAL, cascade_confidence=0.9, audit_share=0.5) for _ in range(2))
    ids = _ids(50, start_ms=1_763_000_000_000, step_ms=1)

    first = [one.sort(each, text) for each in ids for text in ("@AcmeHelp", "thanks!", SURE)]

    assert first == [one.sort(each, text) for each in ids for text in ("@AcmeHelp", "thanks!", SURE)]
    assert first == [other.sort(each, text) for each in ids for text in ("@AcmeHelp", "thanks!", SURE)]


@pytest.mark.parametrize(
    "piece",
    [
        "@",
        ":-",
        "(-",
        "http://",
        "https://!",
        "www.",
        "\u200b",
        "1",
        "1 ",
        "1/",
        "1.1",
        "-_",
        "_",
        "*",
        "👍",
        "thanks ",
        "! ",
    ],
)
def test_a_hostile_text_is_read_in_linear_time(prefilter: Prefilter, piece: str) -> None:
    prefilter.sort("conv_1", (piece * 200_000)[:200_000])  # 20 times the longest; quadratic would take many minutes

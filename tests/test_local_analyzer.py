"""The offline analyzer: right on plain complaints, in agreement with itself, and not to be broken by any string."""

import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_analyzer import WEIGHTS_PATH, LocalAnalysis, LocalAnalyzer, summarize
from topics import load_topics, topic_patterns

pytestmark = pytest.mark.unit

ANALYZER = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))  # 5 ms, and no test can change it

# Written for this project. None: the topic is open to debate.
PLAIN_SENTENCES = [
    ("Still waiting on my order, third week now", "negative", "delivery_problems"),
    ("your app crashes every time i open it", "negative", "product_issues"),
    ("been on hold 2 hours", "negative", "customer_service"),
    ("I was charged twice this month", "negative", "billing_payments"),
    ("package says delivered but it isn't here", "negative", "delivery_problems"),
    ("can't log in since the update", "negative", "account_access"),
    ("thanks!", "positive", "praise"),
    ("Love the new update, great job", "positive", "praise"),
    ("😡", "negative", "other"),
    ("❤️", "positive", "praise"),
    ("What time do you open on Sundays?", "neutral", "general_inquiry"),
    ("Llevo tres semanas esperando mi pedido y nadie responde", "negative", "delivery_problems"),
    ("My parcel was left in the rain and everything inside is soaked", "negative", "delivery_problems"),
    ("The courier marked it as delivered and I was home all day", "negative", "delivery_problems"),
    ("Ordered a blue jacket, received a red one", "negative", "delivery_problems"),
    ("It has been ten days and tracking still says label created", "negative", "delivery_problems"),
    ("Half of my groceries were missing from the delivery", "negative", "delivery_problems"),
    ("You said Tuesday. It is Friday. Where is my parcel?", "negative", "delivery_problems"),
    ("The box arrived crushed and the mug inside was broken", "negative", "delivery_problems"),
    ("Paid for next day shipping, still not dispatched", "negative", "delivery_problems"),
    ("the screen went black after the last update", "negative", "product_issues"),
    ("Bought these headphones on Monday and the left side is already dead", "negative", "product_issues"),
    ("My tablet won't turn on anymore", "negative", "product_issues"),
    ("The app freezes on the payment page", "negative", "product_issues"),
    ("Every song skips after ten seconds since yesterday", "negative", None),
    ("Battery goes from 80 to 10 percent in an hour", "negative", "product_issues"),
    ("There was a piece of plastic in my soup", "negative", None),
    ("I restarted it twice and it still doesn't work", "negative", "product_issues"),
    ("Your website won't load my basket", "negative", None),
    ("No internet since 6am and I work from home", "negative", "service_outage"),
    ("Are your servers down again? Nothing connects", "negative", "service_outage"),
    ("The wifi keeps dropping every few minutes", "negative", "service_outage"),
    ("Third outage in our street this week", "negative", "service_outage"),
    ("No signal anywhere in town since last night", "negative", "service_outage"),
    ("Why is there a $40 fee on my bill that nobody mentioned?", "negative", "billing_payments"),
    ("You took money from my card after I cancelled", "negative", "billing_payments"),
    ("My card keeps getting declined even though there is money on it", "negative", "billing_payments"),
    ("Bill went up by 20 dollars without any notice", "negative", "billing_payments"),
    ("Charged me for a subscription I never ordered", "negative", "billing_payments"),
    ("Where is my refund? You promised five days", "negative", "refunds_returns"),
    ("I sent the shoes back a month ago and still have no money", "negative", "refunds_returns"),
    ("I want my money back", "negative", "refunds_returns"),
    ("You refuse to exchange a faulty kettle", "negative", "refunds_returns"),
    ("The password reset email never arrives", "negative", "account_access"),
    ("Someone hacked my account and changed the email", "negative", "account_access"),
    ("My account was suspended for no reason", "negative", "account_access"),
    ("I am locked out and the code does not work", "negative", "account_access"),
    ("It tells me my username does not exist", "negative", "account_access"),
    ("Nobody answers the phone at your office", "negative", "customer_service"),
    ("Your agent hung up on me", "negative", "customer_service"),
    ("I have emailed you four times and got no reply", "negative", "customer_service"),
    ("The lady at the desk was so rude to my mother", "negative", "customer_service"),
    ("Passed around between three departments, no one can help", "negative", "customer_service"),
    ("Your chat bot keeps sending me in circles", "negative", "customer_service"),
    ("how is it possible that no one has called me back", "negative", "customer_service"),
    ("My flight is delayed again by four hours", "negative", "travel_disruption"),
    ("You lost my suitcase on the way to Rome", "negative", "travel_disruption"),
    ("Stuck on the tarmac for two hours without water", "negative", "travel_disruption"),
    ("Missed my connection because the first plane was late", "negative", "travel_disruption"),
    ("The 7:40 train was cancelled, third time this week", "negative", "travel_disruption"),
    ("Had to stand all the way to Leeds, only two carriages", "negative", "travel_disruption"),
    ("Your prices went up again and the portions got smaller", "negative", "pricing_promotions"),
    ("The discount code does not work at checkout", "negative", "pricing_promotions"),
    ("It cost 30 euro yesterday and 50 today", "negative", None),
    ("Why can't I delete a playlist from my phone?", "negative", None),
    ("This is unacceptable", "negative", "other"),
    ("worst company ever", "negative", None),
    ("I will never order from you again", "negative", None),
    ("So disappointed right now", "negative", "other"),
    ("Great, another delay. Thanks for nothing", "negative", None),
    ("👎👎", "negative", "other"),
    ("🤬🤬🤬", "negative", "other"),
    (":(", "negative", "other"),
    ("thank you so much for the quick help", "positive", "praise"),
    ("Brilliant service from Maria at the front desk today", "positive", "praise"),
    ("Package came a day early, I'm impressed", "positive", "praise"),
    ("You guys are the best", "positive", "praise"),
    ("It works now, thank you!", "positive", "praise"),
    ("My new camera is amazing", "positive", "praise"),
    ("Best flight I have had in years, lovely crew", "positive", "praise"),
    ("I love this app", "positive", "praise"),
    ("Shout out to Ken, he fixed it in two minutes", "positive", "praise"),
    ("perfect, cheers", "positive", "praise"),
    ("so happy with my new sofa", "positive", "praise"),
    ("😍😍", "positive", "praise"),
    ("👍", "positive", "praise"),
    (":)", "positive", "praise"),
    ("Do you ship to Norway?", "neutral", "general_inquiry"),
    ("How do I change my delivery address?", "neutral", None),
    ("Is the blue one available in size 9?", "neutral", "general_inquiry"),
    ("Which terminal does the flight to Oslo leave from?", "neutral", None),
    ("Can I bring a guitar on board?", "neutral", "general_inquiry"),
    ("Sent you a DM", "neutral", "other"),
    ("Order number 55120", "neutral", "other"),
    ("I'm using version 10.2 on a Pixel", "neutral", None),
    ("Could you tell me your opening hours?", "neutral", "general_inquiry"),
    ("It would be nice to have a dark mode", "neutral", "feature_request"),
    ("ok will do", "neutral", "other"),
    ("yes, the one in Dallas", "neutral", "other"),
    ("Where can I find my invoice?", "neutral", "general_inquiry"),
    ("J'attends mon colis depuis deux semaines, aucune réponse", "negative", "delivery_problems"),
    ("Mon application plante tout le temps", "negative", "product_issues"),
    ("Mein Paket ist seit drei Wochen nicht angekommen", "negative", "delivery_problems"),
    ("Die App stürzt ständig ab", "negative", "product_issues"),
    ("Meu pedido ainda não chegou e ninguém responde", "negative", "delivery_problems"),
    ("Fui cobrado duas vezes este mês", "negative", "billing_payments"),
    ("Il mio ordine non è ancora arrivato, nessuno risponde", "negative", "delivery_problems"),
    ("Servizio clienti pessimo, mai più", "negative", "customer_service"),
    ("La aplicación no funciona desde ayer", "negative", "product_issues"),
    ("Muchas gracias por la ayuda", "positive", "praise"),
    ("Merci beaucoup pour votre aide", "positive", "praise"),
    ("Vielen Dank für die schnelle Hilfe", "positive", "praise"),
    ("Obrigado pela ajuda, adorei", "positive", "praise"),
    ("Grazie mille, servizio eccellente", "positive", "praise"),
]

HOSTILE = {
    "nothing": "",
    "blanks": " \t\r\n ",
    "NUL": "\0" * 50,
    "a lone high surrogate": "late again \ud83d",
    "a lone low surrogate": "\ude21 late again",
    "a split emoji": "\ud83d\ude21",
    "zero-width marks": "\u200b\u200d\ufeff\u2060",
    "only a mention": "@AcmeHelp",
    "only a link": "https://example.com/a?b=c",
    "an escape that is none": "\\u12 \\ud83d \\u",
    "an entity with 9,000 digits": "&#" + "9" * 9_000 + ";",
    "combining marks": "a" + "\u0301\u0323" * 4_999,
    "right-to-left override": "\u202eredro ym",
}
LONG = {
    "one letter": "a" * 10_000,
    "one letter and blanks": "a " * 5_000,
    "exclamation marks": "!" * 10_000,
    "mentions": "@a" * 5_000,
    "entities": "&amp;" * 2_000,
    "emoji": "\U0001f621" * 10_000,
    "negations": "not " * 2_500,
    "where is my": "where is my " * 833,
    "words all different": " ".join(f"w{number:x}x" for number in range(1_600)),
    "brackets": "((((" * 2_500,
    "Arabic": "\u0644" * 10_000,
    "combining marks": "\u0323\u0301" * 5_000,
}


@pytest.mark.parametrize(("text", "sentiment", "topic"), PLAIN_SENTENCES, ids=lambda value: str(value)[:40])
def test_a_plain_sentence_is_read_as_people_read_it(text: str, sentiment: str, topic: str | None) -> None:
    analysis = ANALYZER.analyze(text)

    assert analysis.sentiment == sentiment
    assert topic is None or topic in analysis.clusters


def _in_bounds(analysis: LocalAnalysis) -> bool:
    score = analysis.sentiment_score
    band = {"positive": 0.1 < score <= 1, "neutral": -0.1 <= score <= 0.1, "negative": -1 <= score < -0.1}
    return (
        band[analysis.sentiment]
        and score == round(score, 4)
        and 0 <= analysis.confidence <= 1
        and analysis.confidence == round(analysis.confidence, 2)
        and 1 <= len(analysis.clusters) <= 3
        and len(set(analysis.clusters)) == len(analysis.clusters)
        and 0 < len(analysis.reasoning) <= 300
        and len(analysis.summary) <= 140
    )


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_score_and_label_agree_whatever_the_text(text: str) -> None:
    assert _in_bounds(ANALYZER.analyze(text))


@given(st.lists(st.sampled_from([text for text, _, _ in PLAIN_SENTENCES]), min_size=1, max_size=4))
def test_score_and_label_agree_on_mixed_feelings(sentences: list[str]) -> None:
    assert _in_bounds(ANALYZER.analyze(" ".join(sentences)))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_text_is_survived(text: str) -> None:
    analysis = ANALYZER.analyze(text)

    assert _in_bounds(analysis)
    analysis.summary.encode()  # what comes out can be stored as UTF-8
    analysis.reasoning.encode()


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_ten_thousand_characters_take_no_longer_than_they_must(text: str) -> None:
    started = time.process_time()
    analysis = ANALYZER.analyze(text)
    elapsed_s = time.process_time() - started

    assert _in_bounds(analysis)
    assert elapsed_s < 0.5  # 0.05 on a quiet machine; anything quadratic takes seconds


def test_the_same_text_gets_the_same_answer_from_a_warm_and_a_fresh_analyzer() -> None:
    fresh = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))

    assert [fresh.analyze(text) for text, _, _ in PLAIN_SENTENCES] == [
        ANALYZER.analyze(text) for text, _, _ in reversed(PLAIN_SENTENCES)
    ][::-1]


def test_the_reasoning_names_words_of_the_text() -> None:
    reasoning = ANALYZER.analyze("@AcmeHelp Still waiting on my order, third week now").reasoning

    assert "'waiting'" in reasoning
    assert "delivery_problems from 'waiting on my order'" in reasoning


def test_the_reasoning_quotes_an_emoji_that_decided() -> None:
    assert "\U0001f621" in ANALYZER.analyze("\U0001f621").reasoning


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is my order?", "en"),
        ("\u00bfD\u00f3nde est\u00e1 mi pedido?", "es"),
        ("J'attends mon colis depuis deux semaines", "fr"),
        ("Ich warte seit drei Wochen auf mein Paket", "de"),
        ("Meu pedido ainda n\u00e3o chegou", "pt"),
        ("Il mio ordine non \u00e8 ancora arrivato", "it"),
        ("\u0623\u064a\u0646 \u0637\u0644\u0628\u064a", "ar"),
        ("\u092e\u0947\u0930\u093e \u0911\u0930\u094d\u0921\u0930 \u0915\u0939\u093e\u0901 \u0939\u0948", "hi"),
        ("\u6ce8\u6587\u304c\u5c4a\u304d\u307e\u305b\u3093", "ja"),
        ("\u0413\u0434\u0435 \u043c\u043e\u0439 \u0437\u0430\u043a\u0430\u0437", "ru"),
        ("\U0001f621", "und"),
        ("12345", "und"),
    ],
)
def test_the_language_is_told_by_script_and_common_words(text: str, language: str) -> None:
    assert ANALYZER.analyze(text).language == language


@pytest.mark.parametrize(
    "text", ["\u6ce8\u6587\u304c\u5c4a\u304d\u307e\u305b\u3093", "mijn pakket is nog steeds niet bezorgd"]
)
def test_confidence_is_low_in_a_language_the_model_never_saw(text: str) -> None:
    assert ANALYZER.analyze(text).confidence <= 0.4


@pytest.mark.parametrize(
    ("text", "summary"),
    [
        ("@AcmeHelp My parcel is late. Please call me.", "My parcel is late."),
        ("See https://example.com/x for the broken screen", "See for the broken screen"),
        ("Hi. My parcel never came.", "My parcel never came."),
        ("thanks!", "thanks!"),
        ("@AcmeHelp https://example.com", ""),
    ],
)
def test_the_summary_is_the_first_sentence_without_links_and_mentions(text: str, summary: str) -> None:
    assert summarize(text) == summary


def test_a_long_summary_is_cut_between_words() -> None:
    summary = summarize("waiting " * 40)

    assert len(summary) <= 140
    assert summary.endswith("waiting\u2026")


def test_the_weights_stay_within_a_megabyte() -> None:
    assert WEIGHTS_PATH.stat().st_size + WEIGHTS_PATH.with_suffix(".json").stat().st_size <= 1_000_000


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\0" * 12)

    with pytest.raises(ValueError, match=r"weights\.bin has 12 bytes"):
        LocalAnalyzer.load(tmp_path / "weights.bin", topic_patterns={})


def test_weights_that_their_json_was_not_made_with_are_refused(tmp_path: Path) -> None:
    changed = bytearray(WEIGHTS_PATH.read_bytes())
    changed[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(changed)
    shutil.copy(WEIGHTS_PATH.with_suffix(".json"), tmp_path)

    with pytest.raises(ValueError, match=r"weights\.bin is not the file that its \.json was made with"):
        LocalAnalyzer.load(tmp_path / "weights.bin", topic_patterns={})


@pytest.mark.parametrize("text", ["my parcel never came", "thanks!", "What time do you open?"])
def test_a_topic_outside_the_vocabulary_is_never_named(text: str) -> None:
    analyzer = LocalAnalyzer.load(topic_patterns={})

    assert analyzer.analyze(text).clusters == ("other",)

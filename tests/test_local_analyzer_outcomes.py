"""The offline analyzer on how a complaint ended: put right is good news, still open is none, and who cannot get in."""

import pytest

from local_analyzer import LocalAnalyzer
from topics import load_topics, topic_patterns

pytestmark = pytest.mark.unit

ANALYZER = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))  # 5 ms, and no test can change it

# Written for this project. None: the topic is open to debate.
PUT_RIGHT = [
    "The refund for the late fee has arrived, well done",
    "@AcmeHelp money for the double charge is back in my account. Kudos to your team",
    "Login works again, thanks for being quick",
    "the missing parcel was with the neighbours all along. Thanks to the agent who kept looking",
    "No more dropped calls since the new router, impressed",
    "You waived the cancellation fee. That was kind, thanks",
    "Internet is back after the outage, good job everyone",
    "Fair play, the mess with my booking was sorted within an hour",
    "The black screen is gone since the patch \U0001f44d",
    "El reembolso ya llegó, muchas gracias",
    "Problème réglé en dix minutes, bravo",
    "Fehler behoben, läuft wieder. Danke!",
    "Problema resolvido rapidinho, obrigada",
    "Rimborso arrivato, grazie mille",
]
STILL_OPEN = [
    ("The refund for the late fee is still not here", "refunds_returns"),
    ("Update 4.1 did not fix the crashing at all", "product_issues"),
    ("still not fixed after three weeks", None),
    ("You said it was solved. It is not", None),
    ("The replacement has the same fault", None),
    ("Back for five minutes, then down again", "service_outage"),
    ("My parcel finally turned up, empty", "delivery_problems"),
    ("The refund came but half of it is missing", "refunds_returns"),
    ("You closed my complaint as solved and nothing is solved", "customer_service"),
    ("Well done, now it is worse than before the update", None),
    ("sigue sin funcionar después de la actualización", None),
    ("Toujours pas remboursé malgré vos promesses", None),
    ("Immer noch nicht behoben, seit zwei Wochen", None),
]
CANNOT_GET_IN = [
    "@BankOne can't get in since this morning, your app just shows a spinner",
    "is anyone else locked out of the app?",
    "error AB-503 when I try to log in",
    "face id is not accepted any more and my pin does not work either",
    "fingerprint login fails every time since the update",
    "the 2FA code never arrives",
    "the verification code came half an hour late and had expired",
    "the app threw me out and won't let me back in",
    "App says my account does not exist",
    "Cannot access my money for two hours now",
    "your login page sends me back to the login page over and over",
    "No puedo entrar en la aplicación desde esta mañana",
    "Impossible de me connecter à l'appli depuis ce matin",
    "Anmeldung geht seit einer Stunde nicht",
]
OTHER_TOPICS = [
    ("@BankOne down again, second time this week", "service_outage"),
    ("is the app down?", "service_outage"),
    ("Gateway timeout on every page", "service_outage"),
    ("I can't get in touch with anybody at your office", "customer_service"),
    ("You let me in the store and nobody helped us", "customer_service"),
    ("The discount code does not work at checkout", "pricing_promotions"),
    ("The fingerprint sensor of my tablet stopped working", "product_issues"),
    ("The rider left my dinner at the wrong door", "delivery_problems"),
    ("My salary was booked twice and then taken away", "billing_payments"),
    ("My loyalty card points are gone", "billing_payments"),
    ("Fares went up by €4 and the seats are dirtier", "pricing_promotions"),
    ("The 8:12 has two carriages again", "travel_disruption"),
]


@pytest.mark.parametrize("text", PUT_RIGHT)
def test_a_complaint_put_right_is_good_news(text: str) -> None:
    analysis = ANALYZER.analyze(text)

    assert (analysis.sentiment, analysis.clusters) == ("positive", ("praise",))


@pytest.mark.parametrize(("text", "topic"), STILL_OPEN)
def test_a_complaint_still_open_stays_negative(text: str, topic: str | None) -> None:
    analysis = ANALYZER.analyze(text)

    assert analysis.sentiment == "negative"
    assert topic is None or topic in analysis.clusters


@pytest.mark.parametrize("text", CANNOT_GET_IN)
def test_who_cannot_get_in_has_trouble_with_the_account(text: str) -> None:
    analysis = ANALYZER.analyze(text)

    assert "account_access" in analysis.clusters


@pytest.mark.parametrize(("text", "topic"), OTHER_TOPICS)
def test_words_of_the_account_elsewhere_do_not_tip_the_topic(text: str, topic: str) -> None:
    analysis = ANALYZER.analyze(text)

    assert topic in analysis.clusters
    assert "account_access" not in analysis.clusters


@pytest.mark.parametrize("text", ["ok", "Tuesday", "..."])
def test_where_nothing_weighs_the_answer_is_neutral(text: str) -> None:
    analysis = ANALYZER.analyze(text)

    assert (analysis.sentiment, abs(analysis.sentiment_score) <= 0.1) == ("neutral", True)

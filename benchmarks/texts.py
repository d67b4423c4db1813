"""Conversations of our own writing, as many different ones as a benchmark asks for."""

from datetime import UTC, datetime, timedelta

OPENINGS = (
    "Hi team,",
    "Hello,",
    "Honestly,",
    "Seriously?",
    "@support",
    "Just so you know:",
    "Second try:",
    "Good morning,",
    "Ugh,",
    "Hey,",
    "For the record,",
    "Not sure who to ask, but",
    "Long-time customer here:",
    "Quick one:",
    "As I told your colleague,",
    "OK so",
    "Day five and",
    "Dear support,",
    "Could somebody look at this?",
    "I give up,",
)
SUBJECTS = (
    "my order",
    "the parcel",
    "your app",
    "the website",
    "my refund",
    "the invoice you sent me",
    "my account",
    "the new update",
    "the delivery slot",
    "my subscription",
    "the checkout page",
    "the gift card",
    "the return label",
    "the exchange I asked for",
    "my password reset",
    "the replacement charger",
    "the booking",
    "the live chat",
    "the tracking link",
    "my seat reservation",
)
REPORTS = (
    "is three weeks late and nobody answers",
    "has never arrived although it says delivered",
    "crashes every time I open it",
    "was charged twice to my card",
    "still shows an error after the last fix",
    "works again, thank you so much",
    "disappeared overnight without any mail",
    "is wrong for the second time this month",
    "came broken and smells of glue",
    "takes half an hour to load on my phone",
    "was sorted in five minutes, brilliant service",
    "does not match what I paid for",
    "has been stuck on pending since Monday",
    "was cancelled and I was not told",
    "is exactly what I hoped for, love it",
    "asks me to log in again and again",
    "arrived a day early and nicely packed",
    "went to my old address",
    "is fine so far, I only want to know what happens next",
    "cannot be changed anywhere in the settings",
)
ENDINGS = (
    "What should I do now?",
    "Please call me back.",
    "I want my money back.",
    "Thanks for looking into it.",
    "This is the worst I have seen.",
    "Is anybody reading this?",
    "My order confirmation is in your inbox.",
    "I will wait until Friday, then I am gone.",
)
TEXT_COUNT = len(OPENINGS) * len(SUBJECTS) * len(REPORTS) * len(ENDINGS)
STRIDE = 27_893  # prime to TEXT_COUNT: walks through all the combinations, with neighbours that differ in every part
SPREAD = timedelta(days=14)


def conversation_text(number: int) -> str:
    """A different text for each number up to `TEXT_COUNT`; beyond that the same ones with a case number."""
    rest = number * STRIDE % TEXT_COUNT
    words: list[str] = []
    for parts in (OPENINGS, SUBJECTS, REPORTS, ENDINGS):
        rest, place = divmod(rest, len(parts))
        words.append(parts[place])
    text = f"{words[0]} {words[1]} {words[2]}. {words[3]}"
    return text if number < TEXT_COUNT else f"{text} Case {number // TEXT_COUNT}."


def conversation(number: int) -> dict[str, str]:
    """The body of one POST: a text, one of 5,000 authors, a time within the 14 days before 21 January 2025."""
    moment = datetime(2025, 1, 21, tzinfo=UTC) - SPREAD * ((number * STRIDE % TEXT_COUNT) / TEXT_COUNT)
    return {
        "text": conversation_text(number),
        "author": f"customer{number % 5000}",
        "timestamp": moment.isoformat(timespec="seconds"),
    }

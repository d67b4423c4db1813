"""Write labelled support sentences of our own from the phrase files; no text comes from any data set."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

PHRASES = Path(__file__).parent / "phrases"
_SLOT = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")

GREETINGS = ["hi", "hey", "hello", "hi there", "hey guys", "hi team", "good morning", "so", "ok", "well", "um", "guys"]
CLOSINGS = {
    "negative": [
        "please help", "any update?", "help!", "pls fix", "what is going on?", "not happy", "so frustrating",
        "this is ridiculous", "unacceptable", "what's going on", "can someone help?", "disappointed", "come on",
        "any ideas?", "please sort it out", "why?", "seriously?", "smh", "can you help?", "really annoying", "wtf",
        "never again", "i need it today", "please advise", "can you look into it?", "poor service", "fix it",
        "can you assist?", "thanks for nothing", "what should i do?", "#fail", "#badservice", "explain please",
        "thanks",
    ],
    "neutral": ["thanks", "please", "thank you", "cheers", "thx", "any info?", "let me know", "asap", "wondering"],
    "positive": ["thanks again", "you rock", "keep it up", "cheers", "so happy", "appreciate it", "#thankyou"],
}  # fmt: skip
EMOJI = {
    "negative": [
        "😡",
        "😠",
        "🤬",
        "😤",
        "😭",
        "😢",
        "😞",
        "😒",
        "🙄",
        "👎",
        "😫",
        "😩",
        "😖",
        "💔",
        "😑",
        "🤦",
        "😣",
        "😔",
        "😟",
        "🤢",
        "🤮",
        "😾",
        "😿",
        "☹",
        ":(",
        ":-(",
        ":/",
        ":'(",
    ],
    "neutral": ["🤔", "📦", "📱", "❓"],
    "positive": [
        "😍",
        "❤",
        "😊",
        "👍",
        "🎉",
        "🙌",
        "😀",
        "😁",
        "🥰",
        "💕",
        "👏",
        "😄",
        "🙏",
        "⭐",
        "💯",
        "😘",
        "💖",
        "🤗",
        "😃",
        "💙",
        "🔥",
        "☺",
        ":)",
        ":-)",
        ":D",
        "<3",
        ";)",
    ],
}
BRANDS = ["northwind", "contoso", "telnova", "parcelgo", "brightbank", "streambox", "skyjet", "zippyeats", "gadgethub"]


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    label: str
    topic: str


@dataclass(slots=True)
class PhraseBook:
    slots: dict[str, list[str]] = field(default_factory=dict)
    patterns: list[tuple[str, str, str]] = field(default_factory=list)  # topic, label, pattern


def read_phrases(path: Path) -> PhraseBook:
    """Read a phrase file; its head explains the notation."""
    book, topic, label = PhraseBook(), "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("= "):
            name, _, values = line[2:].partition(":")
            book.slots[name.strip()] = [value.strip() for value in values.split(" | ")]
        elif line.startswith("## "):
            topic, label = line[3:].split()
        elif line.strip() and not line.startswith("#"):
            book.patterns.append((topic, label, line.strip()))
    return book


def expand(pattern: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """One sentence of a pattern, its choices and slots filled at random."""
    while match := _CHOICE.search(pattern):
        pattern = pattern[: match.start()] + rng.choice(match[1].split("|")) + pattern[match.end() :]
    while _SLOT.search(pattern):  # the values of a slot may hold slots
        pattern = _SLOT.sub(lambda match: rng.choice(slots[match[1]]), pattern)
    return re.sub(r"\s+([,?!])", r"\1", re.sub(r"\s+", " ", pattern)).strip()


def _dress(core: str, label: str, *, brands: list[str], rng: random.Random, english: bool) -> str:
    """Put a core into a tweet: whom it is sent to, a greeting, a closing, emoji, capitals."""
    text = _framed(core, label, rng) if english else core
    if rng.random() < 0.1:
        text += " " + rng.choice(EMOJI[label]) * rng.choice([1, 1, 2, 3])
    capital = text[:1].upper() + text[1:]
    text = rng.choice([text, text, capital, f"{capital}."])
    if label != "neutral":
        text += "!" * rng.choice([0, 0, 0, 0, 1, 2, 3])
        text = text.upper() if rng.random() < 0.03 else text
    mentions = rng.choices([0, 1, 2], [0.3, 0.6, 0.1])[0]
    text = "".join(f"@{rng.choice(brands)} " for _ in range(mentions)) + text
    return f"{text} https://t.co/x" if rng.random() < 0.08 else text


def _framed(core: str, label: str, rng: random.Random) -> str:
    text = f"{rng.choice(GREETINGS)} {core}" if rng.random() < 0.12 else core
    if rng.random() < 0.3:
        text = f"{text}{rng.choice(['. ', ', ', ' ', '! ', '... '])}{rng.choice(CLOSINGS[label])}"
    return text


def _second(book: PhraseBook, topic: str, label: str, rng: random.Random) -> str:
    """Another sentence of the same label, most often of the same topic: complaints rarely come alone."""
    near = [p for t, lab, p in book.patterns if lab == label and (t == topic or rng.random() < 0.05)]
    return expand(rng.choice(near), book.slots, rng)


def generate(path: Path, *, per_pattern: int, seed: int) -> Iterator[Sentence]:
    """`per_pattern` sentences of every pattern of a file, the same for the same seed; short ones repeat."""
    rng, book = random.Random(seed), read_phrases(path)
    english = path.stem == "en"
    brands = book.slots.get("brand", BRANDS)
    for topic, label, pattern in book.patterns:
        for _ in range(per_pattern):
            core = expand(pattern, book.slots, rng)
            if english and label != "neutral" and rng.random() < 0.3:
                core = f"{core}{rng.choice(['. ', ', ', ' and ', '! ', ' '])}{_second(book, topic, label, rng)}"
            text = _dress(core, label, brands=brands, rng=rng, english=english)
            yield Sentence(text, label, topic)


def emoji_alone(copies: int) -> Iterator[Sentence]:
    """Emoji with nothing beside them but perhaps a mention, one to three in a row."""
    for label, emoji in EMOJI.items():
        topic = "praise" if label == "positive" else "other"
        for mark, count in product(emoji, (1, 2, 3)):
            yield from [Sentence(mark * count, label, topic)] * copies
            yield from [Sentence(f"@{BRANDS[0]} {mark * count}", label, topic)] * copies


def all_sentences(*, per_pattern: int, seed: int) -> list[Sentence]:
    """Every generated sentence, in a fixed order."""
    own = [*generate(PHRASES / "en.txt", per_pattern=per_pattern, seed=seed)]
    own += generate(PHRASES / "other.txt", per_pattern=per_pattern, seed=seed + 1)
    return own + list(emoji_alone(max(1, per_pattern // 10)))

"""Answers of xAI that are spoilt a little, or of no use at all: what may happen to results, and a corpus by hand."""

import json
from collections.abc import Callable, Mapping
from random import Random

from tests.fake_xai_answers import result_for

FOREIGN = 999_999  # above every id that is sent here

Pieces = list[str]  # the results of an answer, each as JSON


def result_json(item_id: int, text: str, **changed: object) -> str:
    return json.dumps(result_for({"id": item_id, "text": text}, **changed))


def with_member(piece: str, name: str, raw: str) -> str:
    """The result with one member written as `raw`, JSON or not."""
    rest = {known: value for known, value in json.loads(piece).items() if known != name}
    return f'{{"{name}": {raw}, {json.dumps(rest)[1:]}'


def id_of(piece: str) -> int:
    item_id: int = json.loads(piece)["id"]
    return item_id


# What may happen to one result among the others


def leave_out(_random: Random, _piece: str, _other: str) -> Pieces:
    return []


def say_twice(_random: Random, piece: str, _other: str) -> Pieces:
    return [piece, piece]


def contradict_itself(_random: Random, piece: str, _other: str) -> Pieces:
    return [piece, with_member(piece, "sentiment_score", "-0.123456")]


def take_a_foreign_id(_random: Random, piece: str, _other: str) -> Pieces:
    return [with_member(piece, "id", str(FOREIGN))]


def claim_a_second_id(random: Random, piece: str, other: str) -> Pieces:
    """One object, two ids: whichever name wins, the result would be one text's under the other's id."""
    first, last = random.sample([id_of(piece), id_of(other)], 2)
    rest = json.dumps({name: value for name, value in json.loads(piece).items() if name != "id"})
    return [f'{{"id": {first}, {rest[1:-1]}, "id": {last}}}']


def name_a_member_twice(random: Random, piece: str, other: str) -> Pieces:
    name = random.choice(["sentiment_score", "confidence", "reasoning"])
    return [f"{piece[:-1]}, {json.dumps(name)}: {json.dumps(json.loads(other)[name])}}}"]


def change_the_ids_type(random: Random, piece: str, other: str) -> Pieces:
    item_id = id_of(random.choice([piece, other]))
    forms = (f'"{item_id}"', f"{item_id}.0", f"{item_id}e0", "true", "null", f"[{item_id}]", f"-{item_id}", "9" * 500)
    return [with_member(piece, "id", random.choice(forms))]


def swap_two_members(random: Random, piece: str, _other: str) -> Pieces:
    result = json.loads(piece)
    one, two = random.choice([("id", "sentiment_score"), ("sentiment_score", "reasoning"), ("clusters", "summary")])
    return [json.dumps({**result, one: result[two], two: result[one]})]


def nest(random: Random, piece: str, other: str) -> Pieces:
    forms = (f"[{piece}]", f'{{"results": [{piece}]}}', f'{{"id": {id_of(other)}, "result": {piece}}}')
    return [random.choice(forms)]


def put_what_is_no_value(random: Random, piece: str, _other: str) -> Pieces:
    name = random.choice(["sentiment_score", "confidence", "clusters", "reasoning"])
    return [
        with_member(piece, name, random.choice(["NaN", "Infinity", "-Infinity", "1e999", "null", "{}", '"\\ud800"']))
    ]


def add_a_member(random: Random, piece: str, other: str) -> Pieces:
    name = random.choice(["injection_suspected", "text", "Id", "ID", "id ", "i\u200bd", "\u0456d"])
    return [f"{piece[:-1]}, {json.dumps(name)}: {id_of(other)}}}"]


def lose_a_member(random: Random, piece: str, _other: str) -> Pieces:
    gone = random.choice(["id", "sentiment_score", "clusters", "confidence", "reasoning", "summary"])
    return [json.dumps({name: value for name, value in json.loads(piece).items() if name != gone})]


def say_it_in_other_letters(random: Random, piece: str, _other: str) -> Pieces:
    words = random.choice(["\U0001f621\u200d\u2764", "\u202eevil", "e\u0301" * 90, "\x00\x1b[31m", '"}]}', "\u5fd8"])
    return [with_member(piece, "reasoning", json.dumps(words, ensure_ascii=random.random() < 0.5))]


def put_noise_beside_it(random: Random, piece: str, other: str) -> Pieces:
    return [piece, random.choice(["null", "7", '"text"', "[]", "{}", str(id_of(other)), f'{{"id": "{id_of(other)}"}}'])]


SPOILERS: tuple[Callable[[Random, str, str], Pieces], ...] = (
    leave_out,
    say_twice,
    contradict_itself,
    take_a_foreign_id,
    claim_a_second_id,
    name_a_member_twice,
    change_the_ids_type,
    swap_two_members,
    nest,
    put_what_is_no_value,
    add_a_member,
    lose_a_member,
    say_it_in_other_letters,
    put_noise_beside_it,
)


# What may happen to the answer as a whole


def wrap(random: Random, pieces: Pieces) -> str:
    whole = f'{{"results": [{", ".join(pieces)}]}}'
    if random.random() < 0.6:
        return whole
    forms = (
        f"```json\n{whole}\n```",
        f"```\n{whole}```",
        f"\ufeff{whole}\n",
        f"Here you are:\n{whole}",
        f"{whole}\nI hope this helps.",
        f"```json\n{whole}\n```\n```json\n{whole}\n```",
        f'{{"results": [], "results": [{", ".join(pieces)}]}}',
        f'{{"results": {{"results": [{", ".join(pieces)}]}}}}',
        f"[{whole}]",
        json.dumps(whole),
        whole[: random.randrange(len(whole))],
        whole.replace('"', "'"),
    )
    return random.choice(forms)


def spoilt_answer(random: Random, texts: Mapping[int, str]) -> str:
    """Each result is spoilt once at most: a made-up score that is left alone under its id could be told by nobody."""
    whole = [result_json(item_id, text) for item_id, text in texts.items()]
    spoilt = random.sample(range(len(whole)), min(len(whole), random.randint(0, 4)))
    pieces: Pieces = []
    for at, piece in enumerate(whole):
        other = random.choice([one for one in whole if one is not piece])
        pieces += random.choice(SPOILERS)(random, piece, other) if at in spoilt else [piece]
    random.shuffle(pieces)
    return wrap(random, pieces)


# Answers of which nothing can be used

ITEM_ID = 100_001
GOOD = result_json(ITEM_ID, "late parcel")

_NO_NUMBER = (
    "null", "true", "false", '"0.5"', '""', "[]", "[0.5]", "{}", '{"value": 0.5}', "2", "-7", "1.0001", "1e308",
    "1e999", "9" * 400, "9" * 5000, "NaN", "Infinity", "-Infinity", "nan", ".5", "+1", "01", "0,5", "1_0", "0x1",
    "", "--1", "½",
)  # fmt: skip
_NO_TEXT = ("null", "true", "3", "0.5", "[]", '["x"]', "{}", '"\\ud800"', '"\\x41"', "'x'", "x", '"a\nb"', '"')
_UNUSABLE_VALUES: Mapping[str, tuple[str, ...]] = {
    "id": (
        "null", "true", "false", f'"{ITEM_ID}"', f'"{ITEM_ID} "', f"{ITEM_ID}.0", "1.00001e5", f"[{ITEM_ID}]",
        f'{{"id": {ITEM_ID}}}', f"-{ITEM_ID}", f"{ITEM_ID}0", "100002", "0", "9" * 30, "9" * 5000, "NaN", f"0{ITEM_ID}",
        "0x186a1", "1e999", "", f"{ITEM_ID}n",
    ),
    "sentiment_score": (*_NO_NUMBER, "-1.0001", '"positive"', '"NaN"'),
    "confidence": (*_NO_NUMBER, "-0.01", '"high"', "100", "90%"),
    "clusters": (
        "null", "true", "3", '"billing_issues"', "[]", "[null]", "[1, 2]", "[[]]", '[["billing_issues"]]', "{}",
        '{"0": "billing_issues"}', "[NaN]", '["billing_issues"', '["\\udfff"]',
    ),
    "reasoning": _NO_TEXT,
    "summary": _NO_TEXT,
    "language": (*_NO_TEXT, '"a language that has no code"'),
    "injection_suspected": ("false", "true", "null"),
    "text": ('"late parcel"',),
    "sentiment": ('"positive"',),
    "ID": (str(ITEM_ID),),
}  # fmt: skip
_UNUSABLE_DOCUMENTS = (
    "", " ", "\ufeff", "\x00", "null", "true", "0", '""', "[]", "{}", "[[]]", "[{}]", "{", "}", "{]", "```", "``````",
    "````", "```json```", "```json\n```", "I cannot judge this.", "<html><body>502</body></html>", "data: {}",
    "undefined", GOOD, f"[{GOOD}]", '{"results": null}', '{"results": {}}', '{"results": "none"}', '{"results": 1}',
    '{"results": [}',
    f'{{"results": {GOOD}}}', f'{{"Results": [{GOOD}]}}', f'{{"result": [{GOOD}]}}', f'{{"results ": [{GOOD}]}}',
    f'{{"results": [[{GOOD}]]}}', f'{{"results": [{json.dumps(GOOD)}]}}', f'{{"results": [{{"result": {GOOD}}}]}}',
    f'{{"results": {{"0": {GOOD}}}}}', f'{{"data": {{"results": [{GOOD}]}}}}', f'{{"results": [{GOOD}]',
    f'{{"results": [{GOOD},]}}', f'{{"results": [{GOOD}]}},', f'{{"results": [{GOOD}]}} {{"results": [{GOOD}]}}',
    f'{{"results": [{GOOD}]}}{{}}', f'Sure! {{"results": [{GOOD}]}}', f'{{"results": [{GOOD}]}} Anything else?',
    f'```json\n{{"results": [{GOOD}]}}', f'{{"results": [{GOOD}]}}\n```', f'~~~\n{{"results": [{GOOD}]}}\n~~~',
    f'Here:\n```json\n{{"results": [{GOOD}]}}\n```', f'```json\n{{"results": [{GOOD}]}}\n```\nDone.',
    f'// all of them\n{{"results": [{GOOD}]}}', f'{{"results": [{GOOD}], "results": [{GOOD}]}}',
    f'{{"results": [{GOOD}, {GOOD}]}}', f'{{"results": [{GOOD[:-1]}, "id": {ITEM_ID}}}]}}',
    f'{{"results": [{GOOD[:-1]}, "sentiment_score": 0.5}}]}}', json.dumps(f'{{"results": [{GOOD}]}}'),
    "[" * 5000 + "]" * 5000, '{"results":' * 900 + "0" + "}" * 900, '{"results": [' * 500 + "]}" * 500,
    '{"results": [' + "[" * 980 + "]" * 980 + "]}", '{"results": ["' + "\ud800" + '"]}', f"\x1b{GOOD}", "9" * 5000,
)  # fmt: skip
UNUSABLE = (
    *_UNUSABLE_DOCUMENTS,
    *(
        f'{{"results": [{with_member(GOOD, name, raw)}]}}'
        for name, values in _UNUSABLE_VALUES.items()
        for raw in values
    ),
)

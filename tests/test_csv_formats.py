import pytest

from loader.csv_formats import ColumnMap, MappingError, detect_columns, parse_columns

pytestmark = pytest.mark.unit

PROSE = ("The parcel came late again", "Nobody answers my mails here", "Really great help today, thanks")
LABELS = ("negative", "positive", "neutral")


def detect(header: str, *rows: str, **overrides: str) -> ColumnMap:
    table = [line.split("|") for line in (header, *rows) if line]
    return detect_columns(table, width=len(table[-1]), overrides=overrides)


def roles(columns: ColumnMap) -> tuple[str, str | None, str | None, str]:
    def name(at: int | None) -> str | None:
        return None if at is None else columns.names[at]

    ids = " ".join(columns.names[at] for at in columns.id_at)
    return columns.names[columns.text_at], name(columns.author_at), name(columns.time_at), ids


@pytest.mark.parametrize(
    ("header", "prefix", "found"),
    [
        pytest.param("tweet_id|author_id|inbound|created_at|text|response_tweet_id|in_response_to_tweet_id", "twcs",
                     ("text", "author_id", "created_at", "tweet_id"), id="twcs"),
        pytest.param("text|inbound|tweet_id", "twcs", ("text", None, None, "tweet_id"), id="twcs cut down"),
        pytest.param("tweet_id|airline_sentiment|airline|name|text|tweet_created", "airline",
                     ("text", "name", "tweet_created", "tweet_id"), id="airline"),
        pytest.param("_unit_id|_golden|airline_sentiment|name|text|tweet_created|tweet_id", "airline",
                     ("text", "name", "tweet_created", "tweet_id _unit_id"), id="airline from CrowdFlower"),
        pytest.param("target|ids|date|flag|user|text", "s140", ("text", "user", "date", "ids"), id="Sentiment140"),
        pytest.param("textID|text|selected_text|sentiment", "tse", ("text", None, None, "textID"), id="TSE"),
        pytest.param("_unit_id|_golden|sentiment|date|id|text", "crowdflower", ("text", None, "date", "_unit_id"),
                     id="CrowdFlower"),
        pytest.param("Topic|Sentiment|TweetId|TweetDate|TweetText", "sanders",
                     ("TweetText", None, "TweetDate", "TweetId"), id="Sanders"),
        pytest.param("tweet_text|target|is_there_an_emotion_directed_at_a_brand_or_product", "sxsw",
                     ("tweet_text", None, None, ""), id="SXSW"),
        pytest.param("text|favorited|replyToSN|created|id|screenName", "rtweet",
                     ("text", "screenName", "created", "id"), id="rtweet"),
    ],
)  # fmt: skip
def test_published_files_are_known_by_their_header(header: str, prefix: str, found: object) -> None:
    columns = detect(header, "|".join("x" for _ in header.split("|")))

    assert (columns.prefix, roles(columns), columns.has_header) == (prefix, found, True)


@pytest.mark.parametrize(
    ("rows", "prefix", "found"),
    [
        pytest.param([f"{label}|177{at}|Mon Apr 06 22:19:4{at} PDT 2009|NO_QUERY|user{at}|{PROSE[at]}"
                      for at, label in enumerate("024")], "s140", ("text", "user", "date", "ids"), id="Sentiment140"),
        pytest.param([f"{at}|Lamps|{LABELS[at].title()}|{PROSE[at]}" for at in range(3)], "entity",
                     ("text", None, None, "id"), id="entity sentiment"),
        pytest.param([f"November 0{at + 1}, 2022 at 06:20AM|@user{at}|{PROSE[at]}|https://x.test/u/status/{at}"
                      for at in range(3)], "ifttt", ("text", "user", "date", "link"), id="IFTTT"),
        pytest.param([f"{LABELS[at]}|{PROSE[at]}" for at in (0, 1, 0)], "csv", ("text", None, None, ""),
                     id="label and text"),
        pytest.param([f"{PROSE[at]}|{at % 2}" for at in range(3)], "csv", ("text", None, None, ""),
                     id="text and label"),
        pytest.param(list(PROSE), "csv", ("text", None, None, ""), id="one column"),
    ],
)  # fmt: skip
def test_files_without_a_header_are_known_by_their_shape(rows: list[str], prefix: str, found: object) -> None:
    columns = detect("", *rows)

    assert (columns.prefix.partition("-")[0], roles(columns), columns.has_header) == (prefix, found, False)


@pytest.mark.parametrize(
    ("header", "row", "found"),
    [
        pytest.param("Ticket ID|Customer Name|Ticket Description|Date", f"7|Ann|{PROSE[0]}|2024-05-01",
                     ("Ticket Description", "Customer Name", "Date", "Ticket ID"), id="tickets"),
        pytest.param("|Clothing|Title|Review Text|Rating", f"0|9|Nice|{PROSE[0]}|5", ("Review Text", None, None, ""),
                     id="reviews"),
        pytest.param("nr|what happened", f"1|{PROSE[0]} and {PROSE[1]}", ("what happened", None, None, ""),
                     id="no known name: the prose"),
        pytest.param("nr", f"1|{PROSE[0]}", ("column_2", None, None, ""), id="a header too short"),
        pytest.param("date|text", f"tomorrow|{PROSE[0]}", ("text", None, None, ""), id="a date column without dates"),
    ],
)  # fmt: skip
def test_any_other_file_is_read_by_names_and_prose(header: str, row: str, found: object) -> None:
    assert roles(detect(header, row)) == found


def test_unlike_files_have_unlike_prefixes() -> None:
    assert detect("id|message", f"1|{PROSE[0]}").prefix != detect("id|comment", f"1|{PROSE[0]}").prefix


def test_an_index_without_a_name_is_no_column_of_the_user() -> None:
    assert detect("|id|text", f"0|a|{PROSE[0]}", f"1|b|{PROSE[1]}").index_at == {0}


@pytest.mark.parametrize("column", ["complaint_note", "Complaint Note", "2"])
def test_a_column_is_chosen_by_name_or_number(column: str) -> None:
    columns = detect("text|complaint_note|who", f"x|{PROSE[0]}|Ann", text=column, author="who")

    assert (columns.text_at, columns.author_at) == (1, 2)


@pytest.mark.parametrize("option", ["body=1", "text", "text="])
def test_an_option_that_names_no_role_or_column_is_refused(option: str) -> None:
    with pytest.raises(MappingError):
        parse_columns(option)

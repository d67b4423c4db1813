import pytest

from loader.csv_records import Dialect, Record, Shape, choose_dialect, learn_shape, read_records, split_head

pytestmark = pytest.mark.unit

THREE = Shape(Dialect(), 3, text_at=2)
LABELLED = Shape(Dialect(), 4, text_at=0, label_at=1, labels=frozenset({"0", "1"}))


def read(text: str, shape: Shape = THREE) -> list[Record]:
    return list(read_records(text.splitlines(keepends=True) if "\r" not in text else _by_lf(text), shape))


def _by_lf(text: str) -> list[str]:
    return [line + "\n" for line in text.split("\n")[:-1]]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        pytest.param("id,user,text\n1,a,hello there; all\n2,b,good bye\n", ",", id="commas"),
        pytest.param("id\tuser\ttext\n1\ta\thello, there\n2\tb\tgood, bye\n", "\t", id="tabs"),
        pytest.param("id;user;text\n1;a;hello, there\n2;b;good, bye, all\n", ";", id="semicolons"),
        pytest.param("id|user|text\n1|a|hello, there\n2|b|good bye\n", "|", id="pipes"),
        pytest.param("sep=;\nid;text\n1;hello, there\n2;good, bye, all\n", ";", id="named by a spreadsheet"),
        pytest.param("text\nhello, there\nno comma\nwell, well, well\n", "\x1f", id="one column with commas"),
        pytest.param('id,text\n1,"a, b"\n2,"c\nd"\n', ",", id="quotes and newlines"),
    ],
)
def test_the_delimiter_is_the_one_that_divides_the_rows_evenly(text: str, delimiter: str) -> None:
    assert choose_dialect(text.splitlines(keepends=True)).delimiter == delimiter


def test_backslash_escapes_are_noticed() -> None:
    head = ["id,text\n", '1,"he said \\"well, well\\" and left"\n', '2,"she said \\"no, no\\""\n']

    dialect = choose_dialect(head)

    assert split_head(head, dialect)[1] == ["1", 'he said "well, well" and left']


def test_whole_rows_pass_as_they_are_with_their_lines() -> None:
    records = read('1,a,one\n2,b,"two\nlines"\n\n3,c,three\n')

    assert [(record.line, record.cells[2], record.repair) for record in records] == [
        (1, "one", None),
        (2, "two\nlines", None),
        (5, "three", None),
    ]


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        pytest.param("1,a,first\r\rsecond\n", ["1", "a", "first  second"], id="outside quotes it is a blank"),
        pytest.param('1,a,"first\rsecond"\n', ["1", "a", "first\rsecond"], id="inside quotes it belongs to the text"),
    ],
)
def test_a_bare_cr_does_not_split_a_row(text: str, cells: list[str]) -> None:
    assert [record.cells for record in read(text)] == [cells]


def test_an_unbalanced_quote_swallows_no_rows() -> None:
    rows = [f"Row number {number} is fine.,{number % 2},,\n" for number in range(8)]
    torn = ['The ""soup""," he said,0,,\n', *rows, 'We had ""tea"","" and cake.,1,,\n']

    records = read("".join([*rows, *torn, *rows]), LABELLED)

    assert len(records) == 26
    assert [record.line for record in records if record.repair == "unbalanced quotes"] == [9]


@pytest.mark.parametrize(
    ("line", "shape", "cells", "repair"),
    [
        pytest.param("Good, cheap, near,1,,\n", LABELLED, ["Good, cheap, near", "1", "", ""], "unquoted delimiter",
                     id="text first, a label after it"),
        pytest.param("1,a,well, well\n", THREE, ["1", "a", "well, well"], "unquoted delimiter", id="text last"),
        pytest.param("Very good tea\t1\n", LABELLED, ["Very good tea", "1", "", ""], "foreign delimiter",
                     id="a row of another file"),
        pytest.param("1,a\n2,b,c\n", THREE, ["1", "a", ""], "short row", id="cells are missing"),
        pytest.param("1,a,text,,,\n", THREE, ["1", "a", "text"], None, id="empty columns at the end"),
    ],
)  # fmt: skip
def test_a_torn_row_is_mended_and_said(line: str, shape: Shape, cells: list[str], repair: str | None) -> None:
    first = read(line, shape)[0]

    assert (first.cells, first.repair) == (cells, repair)


@pytest.mark.parametrize(
    ("tail", "fault"),
    [
        pytest.param('2,b,"half a te', "ends inside a quoted field", id="inside quotes"),
        pytest.param("2,b", "ends in the middle of the row", id="before the text"),
        pytest.param('2,b,5" screen', None, id="a stray quote is no open one"),
        pytest.param('2,b,"whole"', None, id="only the newline is missing"),
    ],
)
def test_a_row_that_the_end_of_the_file_cut_off_is_not_used(tail: str, fault: str | None) -> None:
    last = read(f"1,a,whole\n{tail}")[-1]

    assert fault is None if last.fault is None else fault is not None and fault in last.fault


def test_an_endless_field_is_given_up() -> None:
    [record] = read_records(['1,a,"' + "x" * 5_000_000 + '"\n'], THREE)

    assert record.fault == "a field has more than 4194304 characters"


def test_a_column_of_few_short_values_is_learned_as_labels() -> None:
    rows = [[f"A sentence that says {number}", str(number % 2)] for number in range(40)]

    assert learn_shape(rows, Dialect(), width=2, text_at=0).labels == {"0", "1"}

import codecs
import gzip
import zipfile
from pathlib import Path

import pytest

from loader.csv_source import LineReader, RowEnd, Source, SourceError, TextForm, find_sources, survey_text

pytestmark = pytest.mark.unit

SPANISH = "id,text\n1,El señor no contestó mañana — qué pena…\n2,“¿Dónde está?” dijo él\n"


def keep(folder: Path, content: bytes) -> Source:
    path = folder / "file.csv"
    path.write_bytes(content)
    return Source("file.csv", path)


def lines_of(source: Source) -> list[str]:
    return list(LineReader(source, survey_text(source)))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        pytest.param(SPANISH.encode(), "utf-8", id="UTF-8"),
        pytest.param(codecs.BOM_UTF8 + SPANISH.encode(), "utf-8-sig", id="UTF-8 with a BOM"),
        pytest.param(SPANISH.encode("utf-16"), "utf-16", id="UTF-16 with a BOM"),
        pytest.param(codecs.BOM_UTF16_BE + SPANISH.encode("utf-16-be"), "utf-16", id="UTF-16 the other way round"),
        pytest.param(SPANISH.encode("utf-16-le"), "utf-16-le", id="UTF-16 without a BOM"),
        pytest.param(SPANISH.encode("cp1252"), "cp1252", id="cp1252"),
        pytest.param(SPANISH.encode("mac_roman"), "mac_roman", id="Mac-Roman"),
        pytest.param(SPANISH.encode("latin-1", "replace"), "cp1252", id="Latin-1 is part of cp1252"),
    ],
)
def test_the_encoding_is_found_and_the_text_comes_out_whole(tmp_path: Path, content: bytes, encoding: str) -> None:
    source = keep(tmp_path, content)

    assert survey_text(source).encoding == encoding
    assert "".join(lines_of(source)).replace("?", "").replace("—", "")[:40] == SPANISH.replace("—", "")[:40]


def test_a_few_bad_bytes_do_not_change_the_encoding(tmp_path: Path) -> None:
    source = keep(tmp_path, SPANISH.encode() * 5 + b"3,broken \xff here\n")

    assert survey_text(source) == TextForm("utf-8", RowEnd.LF, len(SPANISH.encode()) * 5 + 16, 1, 0)
    assert lines_of(source)[-1] == "3,broken \ufffd here\n"


def test_a_file_cut_inside_a_character_stays_what_it_was(tmp_path: Path) -> None:
    source = keep(tmp_path, "id,text\n1,plain enough\n2,half a é".encode()[:-1])

    assert survey_text(source).encoding == "utf-8"
    assert lines_of(source)[-1] == "2,half a \ufffd"


@pytest.mark.parametrize(
    ("content", "row_end", "count"),
    [
        pytest.param(b"a,b\r\n1,2\r\n", RowEnd.CRLF, 2, id="CRLF"),
        pytest.param(b"a,b\n1,2\n", RowEnd.LF, 2, id="LF"),
        pytest.param(b"a,b\r1,2\r3,4\r", RowEnd.CR, 3, id="CR only"),
        pytest.param(b'a,b\r1,"x\ny"\r3,4\r', RowEnd.CR, 3, id="CR only with LF in quotes"),
        pytest.param(b"a,b\n1,x\ry\n3,4\n", RowEnd.LF, 3, id="a bare CR in an LF file"),
        pytest.param(b"a,b\n1,2", RowEnd.LF, 2, id="no end after the last row"),
    ],
)
def test_the_end_of_rows_is_found(tmp_path: Path, content: bytes, row_end: RowEnd, count: int) -> None:
    source = keep(tmp_path, content)

    assert survey_text(source).row_end is row_end
    assert len(lines_of(source)) == count


def test_nul_characters_are_left_out_and_counted(tmp_path: Path) -> None:
    source = keep(tmp_path, b"id,text\n1,a\0b and a good deal more\n2,quite enough text without any\n")

    assert survey_text(source).nul_count == 1
    assert lines_of(source)[1] == "1,ab and a good deal more\n"


def test_characters_and_ends_on_the_border_of_a_chunk_stay_whole(tmp_path: Path) -> None:
    line = "é" * 1_023 + "\r\n"
    source = keep(tmp_path, (line * 1_100).encode())

    assert set(lines_of(source)) == {line}
    assert survey_text(source).row_end is RowEnd.CRLF


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"  \n<!DOCTYPE html>", "HTML page", id="HTML"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer", id="a pointer"),
        pytest.param(b"%PDF-1.7", "PDF", id="PDF"),
        pytest.param(b'{"text": "hello"}', "JSON", id="JSON"),
        pytest.param(b"PAR1....", "Parquet", id="Parquet"),
        pytest.param(b"\n\n", "empty", id="blank"),
        pytest.param(b"\x1f\x8b\x08damaged", "cannot be read", id="damaged gzip"),
    ],
)
def test_what_is_no_csv_is_refused_by_what_it_is(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        survey_text(keep(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        find_sources(str(tmp_path / "nothing.csv"), tmp_path)


def test_packed_files_read_like_plain_ones(tmp_path: Path) -> None:
    source = keep(tmp_path, gzip.compress(SPANISH.encode()))

    assert "".join(lines_of(source)) == SPANISH


def test_every_table_of_an_archive_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "archive.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/one.csv", SPANISH)
        archive.writestr("two.tsv", SPANISH)
        archive.writestr("read me.md", "not a table")
        archive.writestr("__MACOSX/._one.csv", b"junk")

    sources = find_sources(str(path), tmp_path)

    assert [source.member for source in sources] == ["folder/one.csv", "two.tsv"]
    assert ["".join(lines_of(source)) for source in sources] == [SPANISH, SPANISH]


def test_a_workbook_is_refused_although_it_is_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "book.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")

    with pytest.raises(SourceError, match="spreadsheet workbook"):
        find_sources(str(path), tmp_path)

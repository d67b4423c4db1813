"""docs/FAULTS.md names all that may go wrong, and every test that plays it."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.harness import ROOT

pytestmark = pytest.mark.unit

ROWS = {
    int(cells[1]): cells[4]
    for line in (ROOT / "docs" / "FAULTS.md").read_text(encoding="utf-8").splitlines()
    if (cells := [cell.strip() for cell in line.split("|")])[1:] and cells[1].isdecimal()
}


def marked_tests() -> dict[int, set[str]]:
    """The files that play each fault, by their marks, however these are set."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="fault"), args=[ast.Constant(value=int(number))]):
                    found[number].add(file.name)
                case _:
                    pass
    return found


def test_the_table_has_every_fault() -> None:
    assert list(ROWS) == list(range(1, 23))


def test_every_test_stands_beside_the_fault_that_it_plays() -> None:
    named = {number: set(re.findall(r"`(test_\w+\.py)`", cell)) for number, cell in ROWS.items()}

    assert {number: files for number, files in named.items() if files} == marked_tests()

"""docs/guarantees.md names every kill test, broken twin, crash point, fault mode and planted bug there is."""

import re

from tests.chaos import rows as _rows
from tests.chaos import twins as _twins
from tests.chaos.registry import ROWS, TWINS
from tests.running_site import CHECKOUT
from tests.simulation.bugs import BUGS
from tests.simulation.faults import MODES
from tests.site.test_documents import codes, rows

assert _rows, _twins  # they register themselves
TEXT = (CHECKOUT / "docs" / "guarantees.md").read_text()


def named(section: str, column: int = 0) -> list[str]:
    return [code for cells in rows(TEXT, section) for code in codes(cells[column])]


def test_every_kill_test_is_named_once() -> None:
    known = [name for name in named("What must survive, and the test that kills it", 1) if "/" not in name]
    assert sorted(known) == sorted(ROWS)


def test_every_broken_twin_is_named_once() -> None:
    assert sorted(named("Broken twins")) == sorted(TWINS)


def test_every_crash_point_is_named_once() -> None:
    placed = {
        point
        for app in ("orders", "sales")
        for path in (CHECKOUT / app).rglob("*.py")
        for point in re.findall(r'crashpoints\.reached\("([a-z.-]+)"\)', path.read_text())
    }
    assert len(placed) > 10
    assert sorted(named("Crash points")) == sorted(placed)


def test_every_planted_bug_and_every_mode_is_named() -> None:
    assert named("Planted bugs") == list(BUGS)
    assert len(BUGS) >= 15
    modes = re.search(r"^Fault modes: (.*?)\. CI", TEXT, re.M)
    assert modes
    assert codes(modes[1]) == list(MODES)

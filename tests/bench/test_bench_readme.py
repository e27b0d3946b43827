"""The figures in README.md are those of the newest whole bench in bench/results/."""

from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as command
from bench import plot, readme, results, targets
from bench.measuring import ASKED
from tests.bench.conftest import run
from tests.bench.test_bench_books import NoGround

TEXT = f"# Ours\n\n{readme.BEGIN}\nold\n{readme.END}\n\nMore\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and a README of this test's own."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    readme.README.write_text(TEXT)
    return tmp_path


def rows(block: str) -> dict[str, list[str]]:
    """The cells of the table by the first one."""
    lines = [line.strip("|").split("|") for line in block.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines}


# This checkout's own


def test_the_readme_shows_the_newest_bench() -> None:
    text = readme.README.read_text()
    assert readme.replaced(text, readme.block()) == text, "`make bench ARGS=table` writes it again"


def test_the_picture_shows_the_newest_bench() -> None:
    source, picture = results.newest(), results.FOLDER / "latest.svg"
    drawn = picture.read_text() if picture.exists() else None
    wanted = plot.draw(results.load(source)) if source else None
    assert drawn == wanted, "`make bench ARGS=plot` draws it again"


# The table


def test_before_the_first_bench_it_says_so(folder: Path) -> None:
    readme.write()
    assert readme.README.read_text() == TEXT.replace(
        "old", "Not measured yet: `make bench` writes its figures here."
    )


def test_a_row_has_both_sides_with_their_range_the_target_and_the_verdict(
    folder: Path, found: results.Document
) -> None:
    found["runs"].append(run(ASKED.name, targets.OURS, 30_000.0))
    found["memory"] = {"refused": 1_000_000, "before": 2_000_000, "after": 2_010_000}
    found["other_doors"] = [{"door": "health", "p99": 250_000}]
    results.save(found)
    block = readme.block()
    table = rows(block)
    theirs = ["10,000 (9,000-11,000): 6.00 times", "40,000 (39,000-41,000): 1.50 times"]
    assert table["accepted, per CPU-second"] == [
        "60,000 (59,000-61,000)", *theirs, "5 times, 2 times", "met, **missed**",
    ]  # fmt: skip
    assert table["sold out, Redis asked every time"] == [
        "30,000", "10,000 (9,000-11,000): 3.00 times", "40,000 (39,000-41,000): 0.75 times",
        "2 times", "met, **missed**",
    ]  # fmt: skip
    assert table["accepted at half load, p99 in ms"] == [
        "9.0", "", "8.0: 0.89 times", "less", "**missed**",
    ]  # fmt: skip
    assert table["Redis, after 1,000,000 refusals"] == ["+10 kB", "", "", "within 1 MB", "met"]
    assert table["p99 of health under full load"] == ["250.0 ms", "", "", "below 200 ms", "**missed**"]
    assert "**7 of 13 targets are met.**" in block
    assert f"at commit `{found['commit']}`" in block
    assert "latest.svg" not in block  # which nobody has drawn


def test_what_was_not_measured_to_the_end_is_not_met(folder: Path, found: results.Document) -> None:
    found["memory"] = {"refused": 999, "before": 0, "after": 0}
    results.save(found)
    assert rows(readme.block())["Redis, after 999 refusals"][-1] == "**not measured to the end**"


def test_it_is_made_of_the_newest_whole_bench(folder: Path, found: results.Document) -> None:
    results.save(found | {"at": "2026-01-02T00:00:00+00:00", "commit": "first"})
    results.save(found | {"at": "2026-01-03T00:00:00+00:00", "commit": "second"})
    results.save(found | {"at": "2026-01-04T00:00:00+00:00", "commit": "third", "whole": False})
    results.save(
        found | {"at": "2026-01-05T00:00:00+00:00", "commit": "fourth", "whole": False, "quick": True}
    )
    assert "commit `second`" in readme.block()


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    assert readme.replaced(TEXT, "new") == TEXT.replace("old", "new")
    with pytest.raises(ValueError, match="no <!-- bench: begin -->"):
        readme.replaced("# Ours\n", "new")


# The command


@pytest.fixture
def measured(folder: Path, found: results.Document, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command, which finds at once what `found` has."""

    def run(ground: Any, options: Any, knobs: Any, document: Any, say: Any) -> None:
        apart = {"growth", "line"}
        parts = set(options.parts) & apart or set(found) - apart - {"quick", "whole"}
        document.update({part: found[part] for part in parts})

    def measure(*arguments: str) -> set[str]:
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        assert command.main() == 0
        return {path.name for path in results.FOLDER.glob("*")}

    monkeypatch.setattr(command, "Ground", NoGround)
    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(results, "keep_reference", lambda document: None)
    return measure


def test_a_whole_bench_is_kept_drawn_and_shown(measured: Any, found: results.Document) -> None:
    day = found["at"][:10]
    assert measured() == {f"{day}-{found['commit']}.json", "latest.svg"}
    assert readme.README.read_text() == readme.replaced(TEXT, readme.block())
    assert "](bench/results/latest.svg)" in readme.block()
    assert "growth.svg" not in readme.block()
    readme.README.write_text(TEXT)
    measured("table")
    assert readme.README.read_text() == readme.replaced(TEXT, readme.block())


def test_growth_is_shown_beside_the_newest_whole_bench(measured: Any) -> None:
    measured()
    table = rows(readme.block())
    measured("growth", "--keep")
    assert "](bench/results/growth.svg)" in readme.README.read_text()
    assert rows(readme.block()) == table


def test_the_line_is_shown_beside_it_too(
    measured: Any, found: results.Document, a_line: dict[str, Any]
) -> None:
    measured()
    table = rows(readme.block())
    found["line"] = a_line
    names = measured("line", "--keep")
    assert {f"{found['at'][:10]}-{found['commit']}-line.json", "line.svg"} <= names
    assert "](bench/results/line.svg)" in readme.README.read_text()
    assert rows(readme.block()) == table


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("accepted", "--keep"), "-part"),
        (("--ours-only",), "-part"),
        (("--set", "FLUXGATE_DOOR=lean"), "-part"),
        (("--quick",), "-quick"),
    ],
)
def test_less_than_a_whole_bench_is_kept_and_not_shown(
    measured: Any, found: results.Document, arguments: tuple[str, ...], kept: str
) -> None:
    names = measured(*arguments)
    assert f"{found['at'][:10]}-{found['commit']}{kept}.json" in names
    assert "latest.svg" not in names
    assert "Not measured yet" in readme.block()


def test_a_setting_that_nobody_reads_is_refused(measured: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measured("--set", "FLUXGATE_REPEAT=0")
    assert "no setting: FLUXGATE_REPEAT=0" in capsys.readouterr().err

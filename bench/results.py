"""What a bench has found, as one JSON document: kept in bench/results/, read back for tables and plots."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.figures import Figure, figure
from bench.ground import LOGS

FOLDER = Path(__file__).with_name("results")
_LAST = LOGS / "reference.json"  # the reference's last runs, for --ours-only

Document = dict[str, Any]


def new(knobs: Any, *, quick: bool, whole: bool) -> Document:
    """`whole`: everything is to be measured, both sides, as it is shipped. Only that is shown to others."""
    commit, changed = machine.commit()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "changed": changed,  # files differ from the commit
        "quick": quick,
        "whole": whole,
        "machine": machine.describe(),
        "knobs": asdict(knobs),
        "runs": [],
        "half_load": [],
        "original": [],
        "durable": [],
        "memory": None,
        "other_doors": [],
        "growth": None,
        "line": None,
    }


def of(found: Document, part: str, side: str, name: str, scenario: str | None = None) -> Figure | None:
    """The figure `name` over all runs of a side, or None where it was not measured."""
    runs: Sequence[dict[str, Any]] = found[part] or []
    chosen = [
        run[name] for run in runs if run["side"] == side and (scenario is None or run["scenario"] == scenario)
    ]
    return figure(chosen) if chosen else None


def sides(found: Document, part: str, scenario: str | None = None) -> list[str]:
    """Whoever was measured, in the order in which they came."""
    runs = [run for run in found[part] or [] if scenario is None or run["scenario"] == scenario]
    return list(dict.fromkeys(run["side"] for run in runs))


def save(found: Document) -> Path:
    """bench/results/<date>-<commit>[-growth|-line|-part][-quick].json."""
    FOLDER.mkdir(exist_ok=True)
    kind = "" if found["whole"] or found["quick"] else f"-{_alone(found)}"
    path = FOLDER / f"{found['at'][:10]}-{found['commit']}{kind}{'-quick' if found['quick'] else ''}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def picture(found: Document) -> Path:
    """Where its plot goes."""
    return FOLDER / f"{'latest' if found['whole'] else _alone(found)}.svg"


def _alone(found: Document) -> str:
    """What a document is about that has no crowd's answers."""
    about = [part for part in ("growth", "line") if found.get(part)]
    return about[0] if len(about) == 1 and not found["runs"] else "part"


def load(path: Path) -> Document:
    found: Document = json.loads(path.read_text())
    return found


def newest() -> Path | None:
    """Of whole benches."""
    files = [path for path in FOLDER.glob("*.json") if load(path)["whole"]]
    return max(files, key=lambda path: str(load(path)["at"]), default=None)


def keep_reference(found: Document) -> None:
    """For a later --ours-only: what the reference did, part by part. Parts not run now stay as they were."""
    known = load(_LAST) if _LAST.exists() else {"runs": [], "half_load": [], "durable": [], "original": []}
    for part in known:
        fresh = [run for run in found[part] if _is_reference(run)]
        measured = {run.get("scenario") for run in fresh}
        known[part] = [run for run in known[part] if run.get("scenario") not in measured] + fresh
    _LAST.write_text(json.dumps(known))


def with_last_reference(found: Document) -> Document:
    """The document with the reference's last runs in the places where it has none. For looking at only."""
    if not _LAST.exists():
        return found
    known, full = load(_LAST), dict(found)
    for part, runs in known.items():
        measured = {run.get("scenario") for run in found[part]}
        if found[part] and not any(map(_is_reference, found[part])):
            full[part] = [*found[part], *(run for run in runs if run.get("scenario") in measured)]
    return full


def _is_reference(run: dict[str, Any]) -> bool:
    return str(run["side"]).startswith("reference")

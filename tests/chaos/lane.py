"""One lane: a process with servers of its own that runs rows one after another.

`python -m tests.chaos.lane tansu` reads a job per line, {"row": ..., "twin": ...}, and answers each with a
line: the row's Result as JSON. The first line names its folder. It ends with its input.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

from tests.chaos import rows, twins  # registers them
from tests.chaos.ground import Ground
from tests.chaos.registry import ROWS, TWINS, Result
from tests.chaos.scenario import Scenario
from tests.chaos.site import Unfit

STACKS = {"tansu": ("tansu", 1), "apache-1": ("apache", 1), "apache-3": ("apache", 3)}
KEPT = Path(__file__).resolve().parents[2] / ".fluxgate" / "chaos"  # logs of rows that failed

assert rows, twins


def run(ground: Ground, row: str, twin: str) -> Result:
    """Runs one row. What goes wrong in the harness itself is a violation of the row, too."""
    name = twin or row
    logs = ground.root / "rows" / name
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    scenario = None
    try:
        scenario = Scenario(ground, logs, twin=twin)
        ROWS[row].run(scenario)
        result = scenario.finish(sold_out=ROWS[row].sold_out)
    except Unfit as error:
        result = Result(violations=[f"unfit: {error}", *(scenario.violations if scenario else [])])
    except Exception as error:
        found = scenario.violations if scenario else []
        result = Result(violations=[f"unfit: {type(error).__name__}: {error}", *found])
        (logs / "traceback").write_text(traceback.format_exc())
    finally:
        ground.thaw()
        if scenario is not None:
            scenario.close()
    if scenario is not None and hasattr(scenario, "buyers"):
        (logs / "answers").write_text(json.dumps(scenario.buyers.history.answers, indent=2))
    if result.violations:
        shutil.rmtree(KEPT / name, ignore_errors=True)
        shutil.copytree(logs, KEPT / name)
    return result


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    kafka, brokers = STACKS[sys.argv[1]]
    # Whatever else prints, Django's logging before all, must not stand between the results.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ground = Ground(kafka, brokers)
    try:
        _say({"root": str(ground.root)}, answers)
        for line in sys.stdin:
            job = json.loads(line)
            assert job["row"] in ROWS
            assert not job["twin"] or job["twin"] in TWINS
            _say(asdict(run(ground, job["row"], job["twin"])), answers)
    except KeyboardInterrupt:
        pass  # the one who pressed it sees it already
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ground.close()


def _say(message: dict[str, object], to: TextIO) -> None:
    to.write(json.dumps(message) + "\n")
    to.flush()


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()

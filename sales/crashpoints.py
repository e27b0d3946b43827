"""Named places where a process can be made to die, for the kill tests. Nothing happens unless
`FLUXGATE_CRASH_AT` names one: `place.after-gate`, or `place.after-gate:3` for the third passage.

A crash point is a promise that dying exactly there loses nothing; docs/guarantees.md lists them.
"""

import os
import signal

from django.conf import settings

_name, _, _nth = settings.FLUXGATE.crash_at.partition(":")
_passages = int(_nth or 1)


def reached(name: str) -> None:
    """Kills this process with SIGKILL when it is the chosen place: no handler runs, nothing is finished."""
    global _passages
    if name == _name:
        _passages -= 1
        if _passages == 0:
            os.kill(os.getpid(), signal.SIGKILL)

"""Run a function as somebody else: what an ordinary user meets differs from what root does."""

import os
import pickle
import pwd
from collections.abc import Callable
from typing import Any


def as_ordinary_user(function: Callable[[], Any]) -> Any:
    """What `function` returns or raises, called in a child that is not root (here, if we are not root).

    The child is a fork, not a new interpreter: ours, and the modules it needs, may lie where
    `nobody` cannot read them.
    """
    if os.geteuid() != 0:
        return function()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        outcome: tuple[Any, BaseException | None]
        try:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            os.chdir("/")
            outcome = (function(), None)
        except BaseException as error:
            outcome = (None, error)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(outcome, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result, error = pickle.load(pipe)
    os.waitpid(child, 0)
    if error is not None:
        raise error
    return result

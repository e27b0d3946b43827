"""A pytest plugin: real servers for the whole run, started before Django reads its settings.

`-p tests.servers` stands in pyproject.toml, because pytest-django loads the settings before any
conftest.py is read. Each run has servers, ports and data of its own, so that runs may go side by
side. FLUXGATE_TEST_KAFKA=apache takes real Apache Kafka instead of Tansu.
"""

import os
import shutil
import tempfile
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from management.embedded import Stack, StackError


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, None, None]:
    options = early_config.known_args_namespace
    if not (options.help or options.version):
        stack = Stack(root=Path(tempfile.mkdtemp(prefix="fluxgate-test-")))
        early_config.add_cleanup(partial(_end, stack))  # also after a conftest that fails
        try:
            os.environ.update(stack.up(kafka=os.environ.get("FLUXGATE_TEST_KAFKA", "tansu")))
        except StackError as error:
            raise pytest.UsageError(f"the servers of the tests do not start: {error}") from None
    yield


def _end(stack: Stack) -> None:
    stack.down(wipe=True)
    shutil.rmtree(stack.root, ignore_errors=True)

"""Real servers for development, the demo and the tests: no Docker, no root, all under one folder.

PostgreSQL, Valkey twice (gate and cache) and a Kafka broker, from PyPI wheels (`[dependency-groups] stack`),
or real Apache Kafka from Maven Central. Nothing here needs Django or its settings: tests start the
stack before settings load.
"""

from management.embedded.processes import StackError
from management.embedded.stack import JARS, ROOT, ServerStatus, Stack

__all__ = ["JARS", "ROOT", "ServerStatus", "Stack", "StackError"]

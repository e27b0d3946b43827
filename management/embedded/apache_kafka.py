from pathlib import Path
from management.embedded.server import Broker


def apache_kafka(root: Path, jars: Path, count: int) -> Broker:
    raise NotImplementedError

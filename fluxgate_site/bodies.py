"""Bodies as JSON in the narrow sense: UTF-8, each name once, no number that JSON does not know.

Python's reader is kind: of a name that comes twice it takes the last, of UTF-16 it makes text, of
NaN a number. A proxy or a log that takes the first would see another order than the one that is
placed (RFC 8259, 4 and 8.1).
"""

import json
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from sales.strict_json import each_name_once


class StrictParser(Parser):
    """ninja answers whatever is raised here as a body that cannot be read."""

    def parse_body(self, request: HttpRequest) -> Any:
        return json.loads(
            request.body.decode("utf-8"), object_pairs_hook=each_name_once, parse_constant=_no_constant
        )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")

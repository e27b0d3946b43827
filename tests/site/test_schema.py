"""Every call of openapi.json against the running site: with right data, with wrong data, and by its links.

Schemathesis reads the document as a client's tool would and holds each answer against it: status,
content type, body, `Allow`, and that a token is asked for. A 5xx must be the documented 503.
"""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from sales import arming
from sales.gate import connect, pool_keys
from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site, eventually

DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "openapi.json").read_text())
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            # 503 is documented, so status_code_conformance decides about it; it also refuses any other 5xx.
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503"]},
            # Beside the defaults: what a sale that is over says to an order that is well-formed.
            "positive_data_acceptance": {
                "expected-statuses": ["2xx", "3xx", "401", "403", "404", "409", "410", "429", "503"]
            },
            # Beside the defaults: a body that is too long is not even read.
            "negative_data_rejection": {
                "expected-statuses": [
                    *("400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"),
                    "5xx",
                ]
            },
        }
    }
)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT, config=CONFIG)
BOUNDED = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@SCHEMA.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """JSON Schema calls 3.0 an integer, and docs/api.md does not; that is test_hostile.py's."""
    if (
        isinstance(body, dict)
        and isinstance(quantity := body.get("quantity"), float)
        and quantity.is_integer()
    ):
        return body | {"quantity": int(quantity)}
    return body


LIST, SALE, PLACE = "GET /api/v1/sales", "GET /api/v1/sales/{sale}", "POST /api/v1/sales/{sale}/orders"
STATUS, CANCEL = "GET /api/v1/orders/{order_id}", "POST /api/v1/orders/{order_id}/cancel"
SLUGS = [
    "schema-open",
    "schema-paused",
    "schema-closed",
    "schema-early",
    "schema-room",
    "schema-busy",
    "schema-sold",
]


@pytest.fixture(scope="module")
def sales(site: Site) -> dict[str, Sale]:
    """Sales in every phase. Without a consumer an order stays queued: no answer depends on a clock."""
    plenty: dict[str, Any] = {"allotment": 1_000_000, "limit": 30_000}
    made = {
        "schema-open": site.sell("schema-open", **plenty),
        "schema-paused": site.sell("schema-paused", **plenty),
        "schema-closed": site.sell("schema-closed", **plenty),
        "schema-early": site.sell("schema-early", opens_in=1800),
        "schema-room": site.sell("schema-room", admission_required=True),
        "schema-busy": site.sell("schema-busy", admission_rate=1, burst=1),
        "schema-sold": site.sell("schema-sold", allotment=1, limit=30_000),
    }
    with connect() as gate:  # no clock of this run fills the bucket again
        gate.hset(
            pool_keys(made["schema-busy"].id).gate,
            mapping={"tokens": -1e9, "tokens_at": gate.time()[0] * 1000},
        )
    arming.pause(made["schema-paused"], actor="test")
    arming.close(made["schema-closed"], actor="test")
    assert site.buy("schema-sold", "first").status_code == 202
    return made


@pytest.fixture(scope="module")
def seen() -> Counter[tuple[str, int]]:
    """How often each call gave each status, over the whole module."""
    return Counter()


def credentials(customer: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint(customer)}"}


@SCHEMA.given(slug=st.sampled_from([None, *SLUGS]), admission=st.booleans(), json_only=st.booleans())
@SCHEMA.parametrize()
@BOUNDED
def test_every_call_answers_as_documented(
    case: schemathesis.Case,
    slug: str | None,
    admission: bool,
    json_only: bool,
    site: Site,
    sales: dict[str, Sale],
    seen: Counter[tuple[str, int]],
) -> None:
    if slug is not None and "sale" in case.path_parameters:
        case.path_parameters["sale"] = slug
    if not admission:
        case.headers.pop("Fluxgate-Admission", None)  # a forged one is refused before all that follows
    headers = credentials(f"schema-{seen.total()}") | ({"Accept": "application/json"} if json_only else {})
    answer = case.call_and_validate(base_url=site.url, headers=headers, timeout=20)
    seen[case.operation.label, answer.status_code] += 1


def test_the_calls_above_met_the_answers_that_matter(seen: Counter[tuple[str, int]]) -> None:
    # Whether a unit is granted is left to chance here; the test of the links demands it.
    met = {PLACE: {302, 400, 403, 404, 409, 410, 422, 429, 503}, SALE: {200, 404}, LIST: {200}}
    for call, statuses in met.items():
        assert {status for label, status in seen if label == call} >= statuses


def test_links_lead_from_the_list_to_an_order_and_its_end(site: Site, sales: dict[str, Sale]) -> None:
    trails: list[list[tuple[str, int]]] = []

    class Links(SCHEMA.as_state_machine()):  # type: ignore[misc]
        def setup(self) -> None:
            trails.append([])
            self.headers = credentials(
                f"links-{len(trails)}"
            )  # of its own: no scenario meets another one's keys

        def before_call(self, case: schemathesis.Case) -> None:
            case.headers.pop("Fluxgate-Admission", None)
            if case.meta and case.meta.generation.mode.is_positive and case.operation.label == PLACE:
                # A key that comes again with another quantity is refused, rightly.
                case.headers["Idempotency-Key"] = f"step-{len(trails[-1])}"

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"base_url": site.url, "headers": self.headers, "timeout": 20}

        def after_call(self, response: schemathesis.Response, case: schemathesis.Case) -> None:
            trails[-1].append((case.operation.label, response.status_code))

    Links.run(settings=settings(BOUNDED, max_examples=40, stateful_step_count=16))
    statuses = Counter(each for trail in trails for each in trail)
    for answered in ((PLACE, 202), (STATUS, 200), (CANCEL, 202)):
        assert statuses[answered] > 5, statuses


def test_an_order_in_the_book_answers_as_documented(site: Site, sales: dict[str, Sale]) -> None:
    """What no consumer had touched above: confirmed, then cancelled, each a 200 of the document's shape."""
    placed = site.buy("schema-open", "confirmed")
    order = {"order_id": placed.json()["order_id"]}
    site.consumer()

    def asked(call: str) -> Any:
        method, _, path = call.partition(" ")
        case = SCHEMA[path][method].Case(path_parameters=order)
        return case.call_and_validate(base_url=site.url, headers=credentials("confirmed"), timeout=20).json()

    eventually(lambda: asked(STATUS)["state"] == "confirmed", 60)
    assert asked(CANCEL)["final"] is False
    eventually(lambda: asked(STATUS)["state"] == "cancelled", 60)
    assert asked(CANCEL)["final"] is True


TWISTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "as it is": lambda body: None,
    "a quantity as text": lambda body: body.update(quantity="1"),
    "without its address": lambda body: body.pop("status_url"),
    "a state of its own": lambda body: body.update(state="lost"),
    "a time that is none": lambda body: body.update(server_time="soon"),
}


@pytest.mark.parametrize("twist", TWISTS)
def test_twin_a_body_that_is_not_as_documented_is_seen(
    site: Site, sales: dict[str, Sale], twist: str
) -> None:
    answer = site.buy("schema-open", f"twin {twist}")
    body = answer.json()
    TWISTS[twist](body)
    answer._content = json.dumps(body).encode()
    assert complaints(PLACE, answer) == ([] if twist == "as it is" else ["Response violates schema"])


def test_twin_a_wrong_status_or_type_is_seen(site: Site, sales: dict[str, Sale]) -> None:
    answer = site.get("/api/v1/orders/x", "ann")
    assert complaints(STATUS, answer) == []
    answer.raw.headers["Content-Type"] = "text/html"
    assert complaints(STATUS, answer) == ["Undocumented Content-Type"]
    answer = site.get("/api/v1/orders/x", "ann")
    answer.status_code = 500
    assert sorted(complaints(STATUS, answer)) == ["Server error", "Undocumented status code"]


def complaints(call: str, answer: requests.Response) -> list[str]:
    method, _, path = call.partition(" ")
    case = SCHEMA[path][method].Case(path_parameters={"order_id": "x", "sale": "x"})
    try:
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
    except FailureGroup as found:
        return [failure.title for failure in found.exceptions]
    return []

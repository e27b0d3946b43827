"""The sale day, through HTTP, from the opening to the last row in PostgreSQL."""

import signal
import socket
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
import requests

from orders.models import Order, ParkedRecord
from sales import arming
from sales.gate import connect, image
from sales.identity import mint
from sales.models import Sale
from tests.running_site import Site, eventually

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def consumers(site: Site) -> list["subprocess.Popen[bytes]"]:
    return [site.consumer(), site.consumer()]


def written(site: Site, sale: Sale, units: int) -> None:
    """Waits until the order book has the sale's units and the gate has been told."""
    eventually(lambda: site.confirmed(sale) == units, 60)
    with connect() as gate:
        eventually(lambda: (standing := image(gate, sale.id)) and standing.settled == units, 60)


def test_parallel_requests_with_one_key_are_one_claim(site: Site) -> None:
    sale = site.sell(allotment=100, limit=5)

    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda _: site.buy(sale.slug, "ann", key="one"), range(100)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["order_id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1


def test_a_crowd_gets_exactly_the_allotment(site: Site, consumers: object) -> None:
    sale = site.sell(allotment=40)

    def buyer(number: int) -> list[requests.Response]:
        key = f"key-{number}"
        double_click = [key, key] if number % 5 == 0 else [key]
        return [site.buy(sale.slug, f"buyer-{number}", k) for k in double_click]

    with ThreadPoolExecutor(16) as crowd:
        answers = [answer for both in crowd.map(buyer, range(150)) for answer in both]

    kinds = Counter((answer.status_code, answer.json().get("type")) for answer in answers)
    assert kinds.keys() <= {(202, None), (409, "/problems#sold-out"), (409, "/problems#all-units-held")}
    promised = {answer.json()["order_id"] for answer in answers if answer.status_code == 202}
    assert len(promised) == 40
    written(site, sale, 40)
    assert {str(pk) for pk in Order.objects.filter(sale=sale).values_list("pk", flat=True)} == promised
    sale.refresh_from_db()
    assert sale.sold == 40
    balanced = site.manage("reconcile", "--sale", sale.slug)
    assert "balanced" in balanced.stdout
    assert not ParkedRecord.objects.filter(topic=site.topic).exists()


def test_an_order_can_be_followed_from_the_202_to_the_book(site: Site, consumers: object) -> None:
    sale = site.sell(limit=2, unit_price="1299.50", currency="CHF")
    accepted = site.buy(sale.slug, "ann", quantity=2).json()
    answer = site.get(accepted["status_url"], "ann")
    assert answer.status_code == 200
    if not answer.json()["final"]:
        assert int(answer.headers["Retry-After"]) >= 1
    last = eventually(
        lambda: (body := site.get(accepted["status_url"], "ann").json())["state"] == "confirmed" and body
    )
    names = ("order_id", "final", "sale", "quantity", "unit_price", "currency")
    assert {name: last[name] for name in names} == {
        "order_id": accepted["order_id"],
        "final": True,
        "sale": sale.slug,
        "quantity": 2,
        "unit_price": "1299.50",
        "currency": "CHF",
    }
    final = site.get(accepted["status_url"], "ann")
    assert "Retry-After" not in final.headers
    same = site.get(accepted["status_url"], "ann", **{"If-None-Match": final.headers["ETag"]})
    assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize("order_id", ["nonsense", "0", "{}", str(uuid4()), "%00", "a" * 2000])
def test_unknown_orders_are_404(site: Site, order_id: str) -> None:
    for answer in (
        site.get(f"/api/v1/orders/{order_id}", "ann"),
        requests.post(
            f"{site.url}/api/v1/orders/{order_id}/cancel",
            headers={"Authorization": f"Bearer {mint('ann')}"},
            timeout=10,
        ),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems#order-not-found")


def test_foreign_orders_look_like_unknown_ones(site: Site, consumers: object) -> None:
    sale = site.sell()
    url = site.buy(sale.slug, "ann").json()["status_url"]
    for _ in range(2):
        foreign = site.get(url, "bob")
        assert (foreign.status_code, foreign.json()["type"]) == (404, "/problems#order-not-found")
        written(site, sale, 1)
    assert site.get(url).status_code == 401


def test_a_cancelled_unit_is_sold_again_exactly_once(site: Site, consumers: object) -> None:
    sale = site.sell(allotment=1)
    url = site.buy(sale.slug, "ann", "key").json()["status_url"]
    written(site, sale, 1)

    def cancel(customer: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {mint(customer)}"}
        return requests.post(f"{site.url}{url}/cancel", headers=headers, timeout=10)

    assert cancel("bob").status_code == 404
    assert cancel("ann").status_code == 202
    assert cancel("ann").status_code in (200, 202)
    eventually(lambda: site.get(url, "ann").json()["state"] == "cancelled")
    assert cancel("ann").status_code == 200
    with connect() as gate:
        eventually(lambda: (standing := image(gate, sale.id)) and standing.remaining == 1)
    # Not at once: a process may still be repeating that there is none.
    eventually(lambda: site.buy(sale.slug, "bob", "bob").status_code == 202)
    assert site.buy(sale.slug, "cid").json()["type"] in ("/problems#sold-out", "/problems#all-units-held")
    assert site.buy(sale.slug, "ann", "key").status_code == 202  # the old key still names the old order
    eventually(lambda: site.confirmed(sale) == 1)
    eventually(lambda: site.manage("reconcile", "--sale", sale.slug, check=False).returncode == 0)


def test_a_client_that_hangs_up_still_gets_its_order(site: Site, consumers: object) -> None:
    sale = site.sell(allotment=30)
    for number in range(30):
        body = b'{"quantity":1}'
        head = (
            f"POST /api/v1/sales/{sale.slug}/orders HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {mint(f'buyer-{number}')}\r\nIdempotency-Key: k\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", site.port)) as client:
            client.sendall(head.encode() + body)
            time.sleep(number % 6 / 1000)  # somewhere between the gate and the acknowledgement
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # by a reset
    with connect() as gate:

        def all_written() -> bool:
            standing = image(gate, sale.id)
            taken = standing.loaded - standing.remaining if standing else 0
            return 0 < taken == site.confirmed(sale)

        eventually(all_written)
    answers = [site.buy(sale.slug, f"buyer-{number}", "k") for number in range(30)]
    assert {answer.status_code for answer in answers} == {202}
    written(site, sale, 30)


def test_the_buy_path_opens_no_database_connection(site: Site) -> None:
    """A web process whose database does not exist sells all the same."""
    url = "postgresql://nobody@127.0.0.1:1/nowhere"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    web = site.another_web(FLUXGATE_DATABASE_URL=url)
    web.wait("/readyz")
    sale = site.sell(allotment=2)
    first = web.buy(sale.slug, "ann", "key")
    assert (first.status_code, first.json()["state"]) == (202, "queued")
    assert web.buy(sale.slug, "ann", "key").headers["Idempotency-Replayed"] == "true"
    assert web.buy(sale.slug, "ann").json()["type"] == "/problems#limit-reached"
    assert web.buy(sale.slug, "bob").status_code == 202
    assert web.buy(sale.slug, "cid").json()["type"] in ("/problems#sold-out", "/problems#all-units-held")
    status = web.get(first.json()["status_url"], "ann")
    assert status.json()["state"] in ("queued", "confirmed")


def test_a_web_process_that_ends_under_load_loses_nobody(site: Site, consumers: object) -> None:
    """SIGTERM: what was read is answered. Whom nobody listened to any more repeats, and is one order."""
    web = site.another_web()
    web.wait("/readyz")
    sale = site.sell(allotment=1000)
    answers: list[int] = []
    turned_away: list[int] = []

    def buyer(number: int) -> None:
        try:
            answers.append(web.buy(sale.slug, f"buyer-{number}", "key").status_code)
        except requests.ConnectionError:
            turned_away.append(number)

    with ThreadPoolExecutor(8) as crowd:
        futures = [crowd.submit(buyer, number) for number in range(200)]
        eventually(lambda: len(answers) > 40)
        web.process.send_signal(signal.SIGTERM)
        for future in futures:
            future.result()
    assert web.process.wait(30) == 0
    assert set(answers) == {202}
    assert turned_away
    for number in turned_away:
        assert site.buy(sale.slug, f"buyer-{number}", "key").status_code == 202
    written(site, sale, 200)


def test_closing_ends_the_day(site: Site, consumers: object) -> None:
    sale = site.sell(allotment=5)
    accepted = site.buy(sale.slug, "ann", "key")
    written(site, sale, 1)
    arming.close(sale, actor="test")
    assert sale.state == "closed"
    assert site.buy(sale.slug, "bob").status_code == 410
    again = site.buy(sale.slug, "ann", "key")
    assert (again.status_code, again.content) == (202, accepted.content)
    assert site.get(f"/api/v1/sales/{sale.slug}").json()["phase"] == "closed"

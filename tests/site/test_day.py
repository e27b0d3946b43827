"""The sale day, through HTTP, from the opening to the last row in PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

from tests.running_site import Site


def test_parallel_requests_with_one_key_are_one_claim(site: Site) -> None:
    sale = site.sell(allotment=100, limit=5)

    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(lambda _: site.buy(sale.slug, "ann", key="one"), range(100)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["order_id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1

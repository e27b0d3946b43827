"""A bench reports nothing when the books do not balance."""

from collections.abc import Callable
from typing import Any

import pytest

from bench import __main__ as command
from bench import shop
from bench.errors import Unbalanced
from sales.models import Sale


def test_books_that_agree_are_taken(open_sale: Callable[..., Sale]) -> None:
    shop.must_balance([open_sale().slug], accepted=0)


def test_an_answer_without_its_row_is_refused(open_sale: Callable[..., Sale]) -> None:
    with pytest.raises(Unbalanced, match="1 orders were answered 202, and 0 are in the order book"):
        shop.must_balance([open_sale().slug], accepted=1)


def test_books_that_differ_are_refused(open_sale: Callable[..., Sale]) -> None:
    sale = open_sale()
    Sale.objects.filter(pk=sale.pk).update(sold=3)  # three units that no order has
    with pytest.raises(Unbalanced, match=f"the books of {sale.slug} do not balance: I1"):
        shop.must_balance([sale.slug], accepted=0)


class NoGround:
    def __init__(self, *, hurry: bool) -> None:
        pass

    def close(self) -> None:
        pass


def test_the_command_says_why_in_one_line_and_shows_no_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unbalanced(ground: Any, options: Any, knobs: Any, found: Any, say: Any) -> None:
        found["runs"].append({"scenario": "accepted", "side": "ours, hot", "per_cpu_second": 1e6})
        raise Unbalanced("1 orders were answered 202, and 0 are in the order book")

    monkeypatch.setattr("sys.argv", ["bench", "accepted", "--keep"])
    monkeypatch.setattr(command, "Ground", NoGround)
    monkeypatch.setattr(command, "run", unbalanced)
    monkeypatch.setattr(command.results, "save", lambda found: pytest.fail("figures were kept"))
    monkeypatch.setattr(command.readme, "write", lambda: pytest.fail("figures were shown"))
    assert command.main() == 1
    printed = capsys.readouterr().out
    assert printed == "no figures: 1 orders were answered 202, and 0 are in the order book\n"

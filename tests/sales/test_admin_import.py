"""Products from a CSV file: previewed, all or nothing, stock by deltas, hostile rows refused."""

import re
from typing import Any

import pytest
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from sales import arming
from sales.importing import MAX_BYTES, MAX_ROWS, ProductResource, units
from sales.models import Product, SaleEvent
from tests.desk import EVERYTHING, said, sign_in

pytestmark = pytest.mark.django_db

IMPORT = reverse("admin:sales_product_import")
CONFIRM = reverse("admin:sales_product_process_import")


@pytest.fixture
def operator(db: None) -> Client:
    return sign_in(EVERYTHING, name="olivia")


@pytest.fixture
def tee(db: None) -> Product:
    return Product.objects.create(sku="TEE", name="Tee", description="Black", stock=10)


def upload(client: Client, content: str | bytes, name: str = "products.csv") -> Any:
    raw = content if isinstance(content, bytes) else content.encode()
    return client.post(IMPORT, {"format": "0", "import_file": SimpleUploadedFile(name, raw)})


def confirm(client: Client, preview: Any) -> Any:
    return client.post(CONFIRM, preview.context["confirm_form"].initial, follow=True)


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", response.content.decode())


def untouched(tee: Product | None = None) -> bool:
    """Nothing but the one product of the fixture is there, as it was."""
    known = {("TEE", "Tee", "Black", 10)} if tee else set()
    rows = set(Product.objects.values_list("sku", "name", "description", "stock"))
    return rows == known and not SaleEvent.objects.exists()


def test_new_and_known_products(operator: Client, tee: Product) -> None:
    content = (
        "sku,name,description,stock,stock_delta\nCAP,Cap,Red cap,25,\nMUG,Mug,,,\nTEE,Concert tee,Black,,-4\n"
    )
    preview = upload(operator, content)
    assert preview.status_code == 200
    assert untouched(tee)  # a preview changes nothing
    shown = text_of(preview)
    assert "Red cap" in shown
    assert "<del>10</del> → <ins>6</ins>" in shown
    assert "<del>Tee</del> → <ins>Concert tee</ins>" in shown
    assert "-4" in shown
    assert "confirm_form" in preview.context

    done = confirm(operator, preview)
    assert said(done) == ["Import finished: 2 new, 1 updated, 0 deleted and 0 skipped products."]
    assert set(Product.objects.values_list("sku", "name", "description", "stock")) == {
        ("CAP", "Cap", "Red cap", 25),
        ("MUG", "Mug", "", 0),
        ("TEE", "Concert tee", "Black", 6),
    }
    events = {
        (e.product.sku, e.detail["delta"], e.actor, e.reason) for e in SaleEvent.objects.all() if e.product
    }
    assert events == {
        ("CAP", 25, "olivia", "CSV import of products.csv"),
        ("TEE", -4, "olivia", "CSV import of products.csv"),
    }


def test_a_file_may_name_the_stock_that_is_there(operator: Client, tee: Product) -> None:
    preview = upload(operator, "sku,stock,stock_delta\nTEE,10,5\n")
    confirm(operator, preview)
    tee.refresh_from_db()
    assert (tee.name, tee.stock) == ("Tee", 15)


def test_a_row_that_changes_nothing_is_skipped(operator: Client, tee: Product) -> None:
    done = confirm(operator, upload(operator, "sku,name,description,stock\nTEE,Tee,Black,10\n"))
    assert "0 updated, 0 deleted and 1 skipped" in said(done)[0]
    assert untouched(tee)


def test_semicolons_and_a_byte_order_mark(operator: Client) -> None:
    confirm(operator, upload(operator, "\ufeffSKU;Name;Stock\nCAP;Cap, red;3\n"))
    assert Product.objects.values_list("sku", "name", "stock").get() == ("CAP", "Cap, red", 3)


def test_a_formula_is_text(operator: Client) -> None:
    preview = upload(operator, 'sku,name\nCAP,"=HYPERLINK(""http://x"")<script>evil()"\n')
    assert "evil()" in preview.content.decode()
    assert "<script>evil()" not in preview.content.decode()
    confirm(operator, preview)
    assert Product.objects.get().name == '=HYPERLINK("http://x")<script>evil()'
    assert "<script>evil()" not in operator.get(reverse("admin:sales_product_changelist")).content.decode()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("CAP,Cap,,-1,", "“-1” is out of range"),
        ("CAP,Cap,,NaN,", "“NaN” is not a whole number of units"),
        ("CAP,Cap,,1e9,", "is not a whole number"),
        ("CAP,Cap,,1.5,", "is not a whole number"),
        ("CAP,Cap,,1_000,", "is not a whole number"),
        ("CAP,Cap,,٣,", "is not a whole number"),
        ("CAP,Cap,,+-5,", "is not a whole number"),
        ("CAP,Cap,,2147483648,", "out of range"),
        (f"CAP,Cap,,{'9' * 5000},", "out of range"),
        ("CAP,Cap,,,5", "This product is new"),
        (",Cap,,5,", "The SKU is missing"),
        ("   ,Cap,,5,", "The SKU is missing"),
        ("CAP,,,5,", "This field cannot be blank"),
        (f"{'x' * 65},Cap,,5,", "at most 64 characters"),
        (f"CAP,{'x' * 201},,5,", "at most 200 characters"),
        ("C\x00P,Cap,,5,", "Control characters"),
        ("CAP,C\x1bap,,5,", "Control characters"),
        ("TEE,Tee,,11,", "The stock is 10, not 11"),
        ("TEE,Tee,,,-11", "it cannot change by -11"),
        ("TEE,Tee,,,2147483647", "it cannot change by +2147483647"),
        ("TEE,Tee,,,-2147483648", "out of range"),
        ("TEE,,,,", "This field cannot be blank"),
    ],
)
def test_a_hostile_row_is_named_and_nothing_is_imported(
    operator: Client, tee: Product, row: str, message: str
) -> None:
    response = upload(operator, f"sku,name,description,stock,stock_delta\nGOOD,Good,,5,\n{row}\n")
    assert response.status_code == 200
    assert message in text_of(response).replace("&#x27;", "'")
    assert "confirm_form" not in response.context
    assert [invalid.number for invalid in response.context["result"].invalid_rows] == [2]
    assert untouched(tee)


def test_the_same_sku_twice_in_a_file(operator: Client, tee: Product) -> None:
    response = upload(operator, "sku,name,stock_delta\nTEE,Tee,1\nCAP,Cap,\n TEE ,Tee,1\n")
    assert "The same SKU stands in row 1" in text_of(response)
    assert untouched(tee)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"sku,name\n", "no products"),
        (b"name,stock\nCap,5\n", "The column “sku” is missing"),
        (b"sku,name,stok\nCAP,Cap,5\n", "Unknown column “stok”"),
        (b"sku,name,id\nCAP,Cap,5\n", "Unknown column “id”"),
        (b"sku,name,name\nCAP,Cap,Cap\n", "twice"),
        (b"sku,name\nCAP,Cap,5\n", "Row 1 has 3 cells"),
        (b"sku,name\nCAP\n", "Row 1 has 1 cells"),
        ("sku,name\nCAP,Mütze\n".encode("latin-1"), "not UTF-8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
        (b'sku,name\nCAP,"Cap\n', "not a CSV file"),
        (b"sku,name\nCAP," + b"x" * 200_000 + b"\n", "not a CSV file"),
        (b"sku,name\n" + b"A,B\n" * (MAX_ROWS + 1), f"at most {MAX_ROWS}"),
        (b"sku,name\n" + b"A,B\n" * (MAX_BYTES // 4), "larger than"),
    ],
)
def test_a_file_that_is_no_product_list_gets_one_line(operator: Client, content: bytes, message: str) -> None:
    response = upload(operator, content)
    assert response.status_code == 200
    (line,) = response.context["form"].errors["import_file"]
    if content:  # Django itself refuses an empty upload, in its own words
        assert message in line
    assert untouched()


def test_what_has_changed_since_the_preview_is_refused_as_a_whole(operator: Client, tee: Product) -> None:
    preview = upload(operator, "sku,name,stock_delta\nCAP,Cap,\nTEE,Tee,-8\n")
    arming.change_stock(tee, -5, actor="bob", reason="meanwhile")
    done = confirm(operator, preview)
    assert "nothing was imported" in said(done)[0]
    tee.refresh_from_db()
    assert tee.stock == 5
    assert not Product.objects.filter(sku="CAP").exists()
    assert SaleEvent.objects.count() == 1


def test_an_import_never_writes_an_absolute_stock(
    operator: Client, tee: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another operator changes the stock after the row was read, before it is written."""
    preview = upload(operator, "sku,name,stock_delta\nTEE,New name,2\n")

    def meanwhile(self: ProductResource, instance: Product, row: Any, **_: Any) -> None:
        arming.change_stock(Product.objects.get(pk=instance.pk), 100, actor="bob", reason="meanwhile")

    monkeypatch.setattr(ProductResource, "before_save_instance", meanwhile)
    confirm(operator, preview)
    tee.refresh_from_db()
    assert (tee.name, tee.stock) == ("New name", 112)


def test_a_confirmation_whose_upload_is_gone(operator: Client, tee: Product) -> None:
    preview = upload(operator, "sku,name\nCAP,Cap\n")
    sent = preview.context["confirm_form"].initial
    cache.delete(f"django-import-export-{sent['import_file_name']}")
    assert "choose the file again" in said(operator.post(CONFIRM, sent, follow=True))[0]
    for forged in (
        {"format": "7", "import_file_name": "a"},
        {"format": "x", "import_file_name": "b"},
        {"import_file_name": "../../etc/passwd"},
    ):
        response = operator.post(CONFIRM, sent | forged, follow=True)
        assert response.status_code == 200
    assert untouched(tee)


def test_confirming_twice_imports_once(operator: Client, tee: Product) -> None:
    preview = upload(operator, "sku,name,stock_delta\nTEE,Tee,3\n")
    confirm(operator, preview)
    assert said(confirm(operator, preview))[-1] == "This import was made already; it was not made twice."
    tee.refresh_from_db()
    assert tee.stock == 13


@pytest.mark.parametrize(
    "permissions",
    [
        (),
        ("sales.view_product",),
        ("sales.add_product", "sales.change_product"),
        ("sales.add_product", "sales.change_stock"),
        ("sales.change_product", "sales.change_stock"),
    ],
)
def test_importing_needs_all_three_permissions(tee: Product, permissions: tuple[str, ...]) -> None:
    client = sign_in(*permissions)
    assert client.get(IMPORT).status_code == 403
    assert upload(client, "sku,name\nCAP,Cap\n").status_code == 403
    assert (
        client.post(CONFIRM, {"import_file_name": "x", "original_file_name": "x", "format": "0"}).status_code
        == 403
    )
    assert untouched(tee)


@pytest.mark.parametrize(
    ("text", "least", "expected"),
    [
        ("", 0, None),
        ("0", 0, 0),
        ("-0", 0, 0),
        ("+7", 0, 7),
        ("007", 0, 7),
        ("-7", -10, -7),
        ("2147483647", 0, 2**31 - 1),
    ],
)
def test_units(text: str, least: int, expected: int | None) -> None:
    assert units(text, least) == expected

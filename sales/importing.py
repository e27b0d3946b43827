"""Products from a CSV file: what a file may say, and what every row has to obey.

Columns: `sku` (names the product), `name`, `description`, `stock`, `stock_delta`. For a new
product `stock` is its initial stock. For one that exists only `stock_delta` changes the stock:
an absolute number would undo what happened since the file was written, so a `stock` that
differs is refused. All changes of stock go through `sales.arming`, one event each.
"""

import csv
import io
import unicodedata
from collections import Counter
from typing import Any

import tablib  # type: ignore[import-untyped]
from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html
from django.utils.safestring import SafeString
from import_export.fields import Field
from import_export.formats.base_formats import CSV
from import_export.forms import ConfirmImportForm
from import_export.resources import Diff, ModelResource
from import_export.tmp_storages import CacheStorage
from unfold.contrib.import_export.forms import ImportForm

from sales import arming
from sales.forms import MAX_UNITS
from sales.models import Product

COLUMNS = ("sku", "name", "description", "stock", "stock_delta")
MAX_ROWS = 5_000
MAX_BYTES = 1_000_000


class FileRefused(Exception):
    """The file as a whole cannot be read. The text is one line for the operator."""


class ProductCsv(CSV):
    """UTF-8, comma or semicolon (Excel's choice in half of Europe), with a header line."""

    def create_dataset(self, in_stream: Any, **kwargs: Any) -> tablib.Dataset:
        """Raises FileRefused."""
        if in_stream is None:
            raise FileRefused("The upload is not there any more: choose the file again.")
        try:
            text = in_stream.decode("utf-8-sig") if isinstance(in_stream, bytes) else str(in_stream)
        except UnicodeDecodeError:
            raise FileRefused("The file is not UTF-8 text: save it as “CSV UTF-8”.") from None
        first = text.partition("\n")[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        try:
            lines = [
                line
                for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
                if any(cell.strip() for cell in line)
            ]
        except csv.Error as error:
            raise FileRefused(f"This is not a CSV file: {error}.") from None
        if not lines:
            raise FileRefused("The file is empty.")
        headers = [cell.strip().lower() for cell in lines[0]]
        _check_headers(headers)
        rows = lines[1:]
        if not rows:
            raise FileRefused("The file has a header line and no products.")
        if len(rows) > MAX_ROWS:
            raise FileRefused(f"{len(rows)} rows: import at most {MAX_ROWS} at a time.")
        for number, row in enumerate(rows, 1):
            if len(row) != len(headers):
                raise FileRefused(f"Row {number} has {len(row)} cells, the header line has {len(headers)}.")
        return tablib.Dataset(*rows, headers=headers)


def _check_headers(headers: list[str]) -> None:
    if "sku" not in headers:
        raise FileRefused("The column “sku” is missing.")
    # A misspelt column would be left out silently, and a stock with it.
    if unknown := [header for header in headers if header not in COLUMNS]:
        raise FileRefused(f"Unknown column “{unknown[0]}”. Known: {', '.join(COLUMNS)}.")
    if twice := [header for header, count in Counter(headers).items() if count > 1]:
        raise FileRefused(f"The column “{twice[0]}” is there twice.")


class UploadStorage(CacheStorage):
    """Between preview and confirmation the file waits in the cache: the second request may meet another
    web process, on another machine. A cache that is down loses it, and the operator uploads again."""

    CACHE_LIFETIME = 3600


class ProductImportForm(ImportForm):
    def clean_import_file(self) -> Any:
        upload = self.cleaned_data["import_file"]
        if upload.size > MAX_BYTES:
            raise ValidationError(f"The file is larger than {MAX_BYTES // 1_000_000} MB: split it.")
        return upload


class ConfirmProductImport(ConfirmImportForm):
    format = forms.ChoiceField(choices=[("0", "csv")], widget=forms.HiddenInput)


class WholeValues(Diff):
    """Shows “750 → 800”. The library's own diff goes by letters and would show 75, 80 and 0."""

    def as_html(self) -> list[SafeString]:
        return [self._cell(before, after) for before, after in zip(self.left, self.right, strict=True)]

    def _cell(self, before: str | None, after: str | None) -> SafeString:
        if self.new or before == after:
            return format_html("{}", after or "")
        return format_html("<del>{}</del> → <ins>{}</ins>", before or "", after or "")


class ProductResource(ModelResource):
    """One file. `_units` holds the change of stock that the present row asks for."""

    stock = Field(attribute="stock", column_name="stock", readonly=True)
    stock_delta = Field(attribute="stock_delta", column_name="stock_delta", readonly=True)

    class Meta:
        model = Product
        fields = COLUMNS
        import_order = COLUMNS
        import_id_fields = ("sku",)
        use_transactions = True
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._first_seen: dict[str, int] = {}
        self._units = 0

    @classmethod
    def get_diff_class(cls) -> type[Diff]:
        return WholeValues

    @classmethod
    def get_display_name(cls) -> str:
        return "Products"

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        """Raises ValidationError by column."""
        errors: dict[str, str] = {}
        for column, value in row.items():
            row[column] = value.strip()
            if any(unicodedata.category(sign) == "Cc" and sign not in "\n\r\t" for sign in row[column]):
                errors[column] = "Control characters are not allowed."
        sku = row["sku"]
        if not sku:
            errors["sku"] = "The SKU is missing."
        elif (first := self._first_seen.setdefault(sku, kwargs["row_number"])) != kwargs["row_number"]:
            errors["sku"] = f"The same SKU stands in row {first}."
        for column, least in (("stock", 0), ("stock_delta", -MAX_UNITS)):
            try:
                units(row.get(column, ""), least)
            except ValueError as error:
                errors.setdefault(column, str(error))
        if errors:
            raise ValidationError(errors)

    def after_init_instance(self, instance: Any, new: bool, row: Any, **kwargs: Any) -> None:
        """Decides the change of stock. Raises ValidationError."""
        stock, delta = units(row.get("stock", ""), 0), units(row.get("stock_delta", ""), -MAX_UNITS)
        if new:
            if delta:
                raise ValidationError(
                    {"stock_delta": "This product is new: give its initial stock in the column “stock”."}
                )
            self._units = stock or 0
            return
        if stock is not None and stock != instance.stock:
            raise ValidationError(
                {
                    "stock": f"The stock is {instance.stock}, not {stock}. "
                    "Leave “stock” empty and give the change in the column “stock_delta”."
                }
            )
        self._units = delta or 0
        instance.stock_delta = f"{delta:+d}" if delta else ""  # for the preview

    def skip_row(self, *args: Any, **kwargs: Any) -> bool:
        return not self._units and bool(super().skip_row(*args, **kwargs))

    def do_instance_save(self, instance: Product, is_create: bool) -> None:
        """Never writes the stock of an existing product: another operator may just be changing it."""
        if is_create:
            instance.save(force_insert=True)
        else:
            instance.save(update_fields=["name", "description", "updated_at"])

    def after_save_instance(self, instance: Product, row: Any, **kwargs: Any) -> None:
        if self._units:
            source = kwargs.get("file_name") or "a file"
            try:
                arming.change_stock(
                    instance,
                    self._units,
                    actor=kwargs["user"].get_username(),
                    reason=f"CSV import of {source}"[:500],
                )
            except arming.Refused as refusal:
                raise ValidationError({"stock_delta": str(refusal)}) from None


def units(text: str, least: int) -> int | None:
    """A whole number of units as written in a cell; None for an empty one. Raises ValueError."""
    if not text:
        return None
    # Not int() alone: it also takes "1_000", " ٣ " and other things no spreadsheet means.
    digits = text[1:] if text[0] in "+-" else text
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"“{text[:40]}” is not a whole number of units.")
    if len(digits) > 10 or not least <= int(text) <= MAX_UNITS:
        raise ValueError(f"“{text[:40]}” is out of range: {least} to {MAX_UNITS}.")
    return int(text)

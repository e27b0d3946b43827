"""Products in the admin: their stock by deltas, their sale windows, their import from CSV."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.cache import cache
from django.db.models import F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from import_export.admin import ImportMixin
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from sales import arming
from sales.admin.events import history_of_stock, record_draft
from sales.admin.product_windows import NewSaleWindows, SaleWindows
from sales.admin.sale_windows import plain, typed_facts
from sales.forms import NewProductForm, ProductForm, StockChangeForm
from sales.importing import (
    ConfirmProductImport,
    FileRefused,
    ProductCsv,
    ProductImportForm,
    ProductResource,
    UploadStorage,
)
from sales.models import Product, Sale, SaleState

# Their units have left the stock and have not come back.
RUNNING = (
    SaleState.ARMING,
    SaleState.ARMED,
    SaleState.OPEN,
    SaleState.PAUSED,
    SaleState.CLOSING,
    SaleState.CLOSED,
)


@admin.register(Product)
class ProductAdmin(ImportMixin, ModelAdmin):
    form = ProductForm
    change_form_template = "admin/sales/product_page.html"
    import_template_name = "admin/sales/import.html"
    import_form_class = ProductImportForm
    confirm_form_class = ConfirmProductImport
    resource_classes = [ProductResource]
    tmp_storage_class = UploadStorage
    list_display = ("sku", "name", "stock", "in_sales")
    list_display_links = ("sku", "name")
    list_per_page = 50
    search_fields = ("sku", "name")
    search_help_text = "SKU or name"
    ordering = ("name",)
    actions = None
    actions_detail = ("change_stock",)
    fieldsets = ((None, {"fields": ("sku", "name", "description", "stock")}),)
    warn_unsaved_form = True

    class Media:
        css = {"all": ("sales/admin.css",)}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Product]:
        running = (
            Sale.objects.filter(product=OuterRef("pk"), state__in=RUNNING)
            .order_by()
            .values("product")
            .annotate(units=Sum(F("allotment") - F("sold")))
            .values("units")
        )
        queryset: QuerySet[Product] = super().get_queryset(request)
        return queryset.annotate(units_in_sales=Coalesce(Subquery(running), 0))

    @display(description="In running sales", ordering="units_in_sales")
    def in_sales(self, product: Any) -> int:
        return int(product.units_in_sales)

    # The form

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = self.form if obj else NewProductForm
        return super().get_form(request, obj, change=change, form=form, **kwargs)

    def get_inlines(self, request: HttpRequest, obj: Any) -> list[Any]:
        if obj is None:
            return []  # first the product and its stock
        return [SaleWindows, NewSaleWindows] if obj.sales.exists() else [NewSaleWindows]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return ("stock",) if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Only while it has no sale and no event: both would be left pointing at nothing."""
        allowed: bool = super().has_delete_permission(request)
        if isinstance(obj, Product):
            return allowed and not obj.sales.exists() and not obj.events.exists()
        return allowed

    def save_model(self, request: HttpRequest, obj: Product, form: Any, change: bool) -> None:
        """Writes the changed columns only: a whole row would put back the stock of a moment ago."""
        if change:
            values = {name: form.cleaned_data[name] for name in form.changed_data}
            if values:
                Product.objects.filter(pk=obj.pk).update(**values, updated_at=timezone.now())
            return
        initial, obj.stock = obj.stock, 0
        super().save_model(request, obj, form, change)
        if initial:
            arming.change_stock(obj, initial, actor=request.user.get_username(), reason="Initial stock")

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        for sale in formset.new_objects:
            record_draft(sale, "draft", request.user.get_username(), plain(typed_facts(sale)))

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        extra = dict(extra_context or {})
        product = self.get_object(request, object_id)
        if product and request.method == "GET" and self.has_view_permission(request, product):
            extra["history"] = history_of_stock(product)
        return super().change_view(request, object_id, form_url, extra)

    # Stock

    @action(
        description="Change stock",
        url_path="stock",
        icon="exposure",
        variant=ActionVariant.PRIMARY,
        permissions=["change_stock"],
    )
    def change_stock(self, request: HttpRequest, object_id: str) -> HttpResponse:
        product = self.get_object(request, object_id)
        if product is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        back = reverse("admin:sales_product_change", args=[product.pk])
        form = StockChangeForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            self._apply_delta(request, product, form.cleaned_data)
            return HttpResponseRedirect(back)
        return TemplateResponse(
            request,
            "admin/sales/confirm.html",
            {
                **self.admin_site.each_context(request),
                "title": f"Change the stock of “{product.name}”",
                "opts": self.opts,
                "original": product,
                "explanation": {
                    "sentences": [
                        "Stock is what no sale has taken. Units of an armed sale are not touched by this.",
                    ],
                    "numbers": [
                        ("Stock now", product.stock),
                        ("In running sales", product.units_in_sales),
                    ],
                },
                "facts": [("Product", product)],
                "form": form,
                "button": "Change stock",
                "back": back,
            },
        )

    def has_change_stock_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return request.user.has_perm("sales.change_stock")

    def _apply_delta(self, request: HttpRequest, product: Product, asked: dict[str, Any]) -> None:
        # False means that this page was sent before; None that the cache is down, and the change is made.
        sent = f"sales:stock-form:{asked['once']}"
        if cache.add(sent, 1, 86_400) is False:
            messages.warning(request, "This change was made already; it was not made twice.")
            return
        try:
            arming.change_stock(
                product, asked["delta"], actor=request.user.get_username(), reason=asked["reason"]
            )
        except arming.Refused as refusal:
            cache.delete(sent)  # nothing was made: the same page may ask for less
            messages.error(request, str(refusal))
        else:
            messages.success(
                request, f"{product.sku}: stock changed by {asked['delta']:+d}, now {product.stock} units."
            )

    # Import

    def has_import_permission(self, request: HttpRequest) -> bool:
        """A file may make products, change them, and change their stock."""
        return bool(
            self.has_add_permission(request)
            and self.has_change_permission(request)
            and self.has_change_stock_permission(request)
        )

    def get_import_formats(self) -> list[type[ProductCsv]]:
        return [ProductCsv]

    def get_import_data_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        # All or nothing, also when a row that was fine in the preview is not any more.
        return super().get_import_data_kwargs(**kwargs) | {"rollback_on_validation_errors": True}

    def add_data_read_fail_error_to_form(self, form: forms.Form, e: Exception) -> None:
        form.add_error("import_file", str(e) if isinstance(e, FileRefused) else "This is not a CSV file.")

    def process_import(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        name = request.POST.get("import_file_name", "")
        # Two clicks may arrive at two processes at once, before either has removed the file.
        if self.has_import_permission(request) and cache.add(f"sales:import:{name}", 1, 86_400) is False:
            messages.warning(request, "This import was made already; it was not made twice.")
            return HttpResponseRedirect(reverse("admin:sales_product_changelist"))
        try:
            return super().process_import(request, **kwargs)
        except FileRefused as refusal:
            messages.error(request, str(refusal))
            return HttpResponseRedirect(reverse("admin:sales_product_import"))

    def process_result(self, result: Any, request: HttpRequest) -> HttpResponse:
        if result.has_errors() or result.has_validation_errors():
            messages.error(
                request, "The products have changed since the preview: nothing was imported. Upload again."
            )
            return HttpResponseRedirect(reverse("admin:sales_product_import"))
        response: HttpResponse = super().process_result(result, request)
        return response

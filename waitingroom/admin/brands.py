"""The brand in the admin: words, colours that can be read, and a logo that is really an image."""

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminFileFieldWidget, UnfoldBooleanWidget

from waitingroom import brand
from waitingroom.models import Brand

MOST_LOGO_BYTES = 64 * 1024
LOGO_SIGNS = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/svg+xml": re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<svg[\s>]", re.DOTALL),
}


class BrandForm(forms.ModelForm):
    """With the logo as a file: the model has its bytes."""

    new_logo = forms.FileField(
        required=False,
        label="Logo",
        help_text=f"SVG, PNG or WebP, square, {MOST_LOGO_BYTES // 1024} kB at most.",
        widget=UnfoldAdminFileFieldWidget,
    )
    without_logo = forms.BooleanField(required=False, label="Without a logo", widget=UnfoldBooleanWidget)

    def clean_new_logo(self) -> tuple[bytes, str] | None:
        """The bytes and their media type, told by themselves and not by the name of the file."""
        given = self.cleaned_data.get("new_logo")
        if not given:
            return None
        content: bytes = given.read(MOST_LOGO_BYTES + 1)
        if len(content) > MOST_LOGO_BYTES:
            raise forms.ValidationError(f"The file is larger than {MOST_LOGO_BYTES // 1024} kB.")
        for media_type, sign in LOGO_SIGNS.items():
            if sign.match(content):
                return content, media_type
        raise forms.ValidationError("This is neither SVG nor PNG nor WebP.")

    def save(self, commit: bool = True) -> Brand:
        brand: Brand = self.instance
        if self.cleaned_data["new_logo"]:
            brand.logo, brand.logo_type = self.cleaned_data["new_logo"]
            brand.logo_version += 1
        elif self.cleaned_data["without_logo"]:
            brand.logo, brand.logo_type = b"", ""
        saved: Brand = super().save(commit)
        return saved


@admin.register(Brand)
class BrandAdmin(ModelAdmin):
    form = BrandForm
    list_display = ("name", "headline", "accent", "accent_dark")
    fields = ("name", "headline", "lede", ("accent", "accent_dark"), "new_logo", "without_logo")
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and not Brand.objects.exists()

    def save_model(self, request: HttpRequest, obj: Brand, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        brand.forget()

    def delete_model(self, request: HttpRequest, obj: Brand) -> None:
        super().delete_model(request, obj)
        brand.forget()

"""Every address of the site below the doors of `fluxgate_site.doors`."""

from django.conf import settings
from django.contrib import admin
from django.urls import URLPattern, URLResolver, path, re_path

from fluxgate_site import second_factor
from fluxgate_site.api import api
from fluxgate_site.demo import token
from fluxgate_site.errors import not_found
from sales.storefront import problems, storefront
from waitingroom.plain import plain_line

urlpatterns: list[URLPattern | URLResolver] = [
    path("", storefront, name="storefront"),
    path("problems", problems, name="problems"),
    path("line/<slug:sale>", plain_line, name="plain-line"),
    path("api/v1/", not_found),  # ninja's own answer is a page
    path("api/v1/", api.urls),
    re_path(r"^api/", not_found),
    path("admin/second-factor/", second_factor.page, name="second-factor"),
    path("admin/", admin.site.urls),
]
if not settings.FLUXGATE.production:
    urlpatterns.append(path("demo/token", token, name="demo-token"))

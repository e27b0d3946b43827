"""Django's settings, derived from `fluxgate_site.environment`; nothing else reads the environment."""

import warnings
from collections.abc import MutableMapping
from datetime import timedelta
from functools import partial

from django.http import HttpRequest
from django.urls import reverse_lazy
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError
from pydantic_settings import SettingsError

from fluxgate_site import logs
from fluxgate_site.environment import BASE_DIR, Environment

try:
    FLUXGATE = Environment()
except ValidationError as error:
    lines = "\n".join(
        f"  FLUXGATE_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors()
    )
    raise SystemExit(f"fluxgate: the settings are not usable:\n{lines}") from None
except SettingsError as settings_error:  # a value that should be JSON and is not
    raise SystemExit(f"fluxgate: the settings are not usable: {settings_error}") from None

DEBUG = False
SECRET_KEY = FLUXGATE.secret_key
ALLOWED_HOSTS = FLUXGATE.allowed_hosts.split(",")
CSRF_TRUSTED_ORIGINS = [origin for origin in FLUXGATE.trusted_origins.split(",") if origin]

INSTALLED_APPS = [
    "unfold",  # before the admin: it replaces the admin's templates
    "unfold.contrib.filters",
    "unfold.contrib.import_export",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "axes",
    "import_export",
    "ninja",  # the API page from its own static files, and export_openapi_schema
    "sales",
    "waitingroom",
    "orders",
    "management",
    "fluxgate_site",
]

# The pages' middleware. The API runs behind its own door without any (fluxgate_site/doors.py).
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",  # says whether this session has shown a code
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "fluxgate_site.second_factor.SecondFactorMiddleware",
    "axes.middleware.AxesMiddleware",  # last, as it asks: it turns a locked sign-in into a page
]

ROOT_URLCONF = "fluxgate_site.urls"
ASGI_APPLICATION = "fluxgate_site.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_database = conninfo_to_dict(FLUXGATE.database_url)
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.get("dbname", ""),
        "USER": _database.get("user", ""),
        "PASSWORD": _database.get("password", ""),
        "HOST": _database.get("host", ""),
        "PORT": str(_database.get("port", "")),
        "CONN_HEALTH_CHECKS": True,  # after a restart of PostgreSQL the pool is full of dead connections
        # The pool refuses persistent connections beside it: CONN_MAX_AGE stays 0.
        "OPTIONS": {
            "pool": {
                "min_size": 0,
                "max_size": FLUXGATE.database_pool_max,
                "timeout": 5,
                # It tries again at doubling distances for so long; then whoever asks next begins anew.
                # With its default of 300 s a PostgreSQL that was away for a minute stayed unfound for
                # another one (measured: 53 s, now 4 s).
                "reconnect_timeout": 2,
            },
            # A database behind a cut cable is gone within seconds, not after TCP's quarter of an hour.
            "connect_timeout": 3,
            "tcp_user_timeout": 5000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            # A process that stands still in the middle of a transaction must not keep its rows locked:
            # whoever takes its work over would wait as long as it does.
            "options": "-c idle_in_transaction_session_timeout=10s",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": FLUXGATE.cache_url,
        "OPTIONS": {
            "IGNORE_EXCEPTIONS": True,  # a cache that is down makes pages slower, never wrong
            "SOCKET_CONNECT_TIMEOUT": 0.25,
            "SOCKET_TIMEOUT": 0.25,
        },
    }
}
# cached_db, not cache: an operator stays signed in when the cache is lost mid-sale.
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"

# Axes first: it turns down who is locked before a password is looked at.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
# Counted in PostgreSQL, axes' default: the cache may be evicted or away, and would forget a guesser then.
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
# Name and address together: nobody can lock a name for everybody, or a name behind an office's one address.
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # 15 minutes are 15 minutes
AXES_LOCKOUT_CALLABLE = "fluxgate_site.lockout.locked"
AXES_DISABLE_ACCESS_LOG = True  # Django has `last_login`
AXES_ENABLE_ADMIN = False  # its tables are for `manage.py axes_list_attempts`
AXES_VERBOSE = False  # a line at each start of each process
OTP_TOTP_ISSUER = "Flux-Gate"  # what an authenticator calls it

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = FLUXGATE.time_zone
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
# Outside production the pages come straight from the source folders, without collectstatic.
WHITENOISE_USE_FINDERS = not FLUXGATE.production
if not FLUXGATE.production:
    warnings.filterwarnings("ignore", "No directory at", UserWarning)
WHITENOISE_AUTOREFRESH = False


def _frame_nothing(headers: MutableMapping[str, str], path: str, url: str) -> None:
    # WhiteNoise answers before Django's middleware, and a page's own <meta> policy cannot say this.
    headers["X-Frame-Options"] = "DENY"
    headers["Content-Security-Policy"] = "frame-ancestors 'none'"


WHITENOISE_ADD_HEADERS_FUNCTION = _frame_nothing
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedStaticFilesStorage"},
}

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = FLUXGATE.https
SECURE_REDIRECT_EXEMPT = ["^api/"]  # a redirected order has lost its body
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if FLUXGATE.https else None
SECURE_HSTS_SECONDS = 31_536_000 if FLUXGATE.https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = FLUXGATE.https


def _may_view(model: str, request: HttpRequest) -> bool:
    app, _, name = model.partition("_")
    return request.user.has_perm(f"{app}.view_{name}")


UNFOLD = {
    "SITE_TITLE": "Flux-Gate",
    "SITE_HEADER": "Flux-Gate",
    "SITE_SUBHEADER": "Flash sales",
    "SITE_SYMBOL": "bolt",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": "/static/waitingroom/favicon.svg"},
    ],
    # Django would put the accounts first; an operator comes for the sales.
    "SIDEBAR": {
        "navigation": [
            {
                "title": title,
                "separator": title != "Sales",
                "items": [
                    {
                        "title": name,
                        "icon": icon,
                        "link": reverse_lazy(f"admin:{model}_changelist"),
                        "permission": partial(_may_view, model),
                    }
                    for name, icon, model in pages
                ],
            }
            for title, pages in (
                (
                    "Sales",
                    (
                        ("Sale windows", "timer", "sales_sale"),
                        ("Waiting rooms", "chair", "waitingroom_room"),
                        ("Products", "inventory_2", "sales_product"),
                        ("Brand", "palette", "waitingroom_brand"),
                        ("Events", "history", "sales_saleevent"),
                    ),
                ),
                (
                    "Orders",
                    (
                        ("Orders", "receipt_long", "orders_order"),
                        ("Parked records", "report", "orders_parkedrecord"),
                        ("Positions", "bookmark", "orders_position"),
                    ),
                ),
                ("Accounts", (("Users", "person", "auth_user"), ("Groups", "group", "auth_group"))),
            )
        ]
    },
}

LOGGING = logs.configured(FLUXGATE.log_format, FLUXGATE.log_level)

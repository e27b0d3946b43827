from django.apps import AppConfig


class FluxgateSiteConfig(AppConfig):
    name = "fluxgate_site"

    def ready(self) -> None:
        from fluxgate_site import checks  # noqa: F401  # registers fluxgate.E001 and its fellows

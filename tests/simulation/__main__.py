"""`python -m tests.simulation`: see report.py."""

import os
import sys

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fluxgate_site.settings")
    django.setup()
    from tests.simulation.report import main

    sys.exit(main())

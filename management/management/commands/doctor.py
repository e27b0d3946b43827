"""`manage.py doctor`: is everything around us as the promise needs it?"""

import json
from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from orders.doctor import Finding, Level, examine


class Command(BaseCommand):
    help = (
        "Examine PostgreSQL, the gate, the cache, Kafka, the clocks and who works; changes nothing. Ends "
        "with 1 when anything fails. Secrets are left to `check --deploy`."
    )
    requires_system_checks: list[str] = []  # an instance shared by mistake is a finding here, not the end

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = examine()
        failed = any(finding.level == Level.FAIL for finding in findings)
        if options["json"]:
            report = {"healthy": not failed, "findings": [finding._asdict() for finding in findings]}
            self.stdout.write(json.dumps(report, indent=2))
        else:
            self._show(findings)
        if failed:
            raise SystemExit(1)

    def _show(self, findings: list[Finding]) -> None:
        width = max(len(finding.area) for finding in findings)
        styles = {Level.FAIL: self.style.ERROR, Level.WARN: self.style.WARNING, Level.OK: self.style.SUCCESS}
        for finding in findings:
            hint = f" -> {finding.hint}" if finding.hint else ""
            level = styles[finding.level](f"{finding.level:<4}")
            self.stdout.write(f"{level}  {finding.area:<{width}}  {finding.text}{hint}")
        count = Counter(finding.level for finding in findings)
        self.stdout.write(f"{count[Level.OK]} ok, {count[Level.WARN]} warn, {count[Level.FAIL]} FAIL")

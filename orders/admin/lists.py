"""What the lists and the histories of the order book share."""

from typing import Any

from django.core.paginator import Paginator
from django.db import connection
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.admin import TabularInline
from unfold.decorators import display

from sales.admin.moments import moment


class EstimatedPaginator(Paginator):
    """Counts no more than a page needs.

    `count(*)` reads the whole table. A list that is not narrowed down shows PostgreSQL's own
    estimate (of the last ANALYZE); one that is narrowed down is counted up to `exact_up_to`, and
    what lies behind is reached by narrowing down further.
    """

    exact_up_to = 10_000

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        if not rows.query.where:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(%s)",
                    [rows.model._meta.db_table],
                )
                estimate = int(cursor.fetchone()[0])
            if estimate > self.exact_up_to:
                return estimate
        return int(rows.order_by()[: self.exact_up_to].count())

    @cached_property
    def num_pages(self) -> int:
        """Pages that are offered: PostgreSQL walks over every row before the one a page begins with."""
        return min(super().num_pages, -(-self.exact_up_to // self.per_page))


class History(TabularInline):
    """Append-only events under the row they belong to."""

    extra = 0
    max_num = 0
    can_delete = False
    hide_title = True

    @display(description="When")
    def when(self, event: Any) -> str:
        return moment(event.at)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

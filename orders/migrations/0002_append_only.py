"""Order events are append-only: see sales.0002."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("orders", "0001_initial"), ("sales", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            sql="""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON orders_orderevent
                FOR EACH ROW EXECUTE FUNCTION fluxgate_append_only();
            """,
            reverse_sql="DROP TRIGGER append_only ON orders_orderevent;",
        )
    ]

"""Two foreign keys per order less, which took 15 of 40 µs, and an index that finds what a customer has of a sale.

What the keys kept is kept otherwise: no order is ever deleted, by an operator with psql either, and a sale that
was armed has events whose foreign key keeps it. The function is that of sales.0002.
"""

import django.db.models.deletion
from django.db import migrations, models

KEEP = """
CREATE TRIGGER never_deleted BEFORE DELETE ON orders_order
    FOR EACH ROW EXECUTE FUNCTION fluxgate_append_only();
"""
LET_GO = "DROP TRIGGER never_deleted ON orders_order;"


class Migration(migrations.Migration):
    dependencies = [
        ("orders", "0006_barrier"),
        ("sales", "0002_append_only"),
    ]

    operations = [
        migrations.AlterField(
            model_name="order",
            name="sale",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="orders",
                to="sales.sale",
            ),
        ),
        migrations.AlterField(
            model_name="orderevent",
            name="order",
            field=models.ForeignKey(
                db_constraint=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="events",
                to="orders.order",
            ),
        ),
        migrations.RemoveIndex(model_name="order", name="order_customer"),
        migrations.AddIndex(
            model_name="order",
            index=models.Index(fields=["customer", "sale"], name="order_customer_sale"),
        ),
        migrations.RunSQL(sql=KEEP, reverse_sql=LET_GO),
    ]

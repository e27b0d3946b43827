"""The event logs are append-only for everybody, an operator with psql included."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("sales", "0001_initial")]

    operations = [
        migrations.RunSQL(
            sql="""
            CREATE FUNCTION fluxgate_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
            END $$;
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON sales_saleevent
                FOR EACH ROW EXECUTE FUNCTION fluxgate_append_only();
            """,
            reverse_sql="""
            DROP TRIGGER append_only ON sales_saleevent;
            DROP FUNCTION fluxgate_append_only();
            """,
        )
    ]

"""Why a line went faster or slower stays on record, as the other event logs do."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("waitingroom", "0001_initial"), ("sales", "0002_append_only")]

    operations = [
        migrations.RunSQL(
            sql="""
            CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON waitingroom_pace
                FOR EACH ROW EXECUTE FUNCTION fluxgate_append_only();
            """,
            reverse_sql="DROP TRIGGER append_only ON waitingroom_pace;",
        )
    ]

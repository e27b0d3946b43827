"""The operator's desk: thin `manage.py` commands that wire the house for the shell, and their servers.

Why `management/management/commands/`: Django looks for an app's commands at `<app>/management/commands/`.
This app is called management, so the word stands twice; a bare `management/commands/` is not found.

The app has no models and nothing imports it: `fluxgate_site` wires the house for HTTP, this app for the
shell. `management.embedded` is plain Python and needs no Django.
"""

"""What the shop costs: measured against a Node service of our own, on servers of our own.

`python -m bench` (or `make bench`) starts everything on free loopback ports and ends it again.
bench/README.md says what is measured and what a figure means. Everything here runs beside the
product and imports it; nothing imports this.
"""

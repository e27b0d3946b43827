"""Patience: shedding, and the static pages people wait on."""

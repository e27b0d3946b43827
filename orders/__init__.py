"""Demand: claims, the log, the API that places an order, fulfillment, reconciliation."""

"""The site: settings, doors, URLs. No business rules. The composition root for HTTP."""

"""Prometheus numbers about Celery: kept in plain dictionaries, written as text, served over HTTP."""

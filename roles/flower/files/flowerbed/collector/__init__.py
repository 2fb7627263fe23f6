"""The collector: reads Celery's events once, and gives metrics and a history of tasks."""

"""The history: one row a task, in SQLite or PostgreSQL."""

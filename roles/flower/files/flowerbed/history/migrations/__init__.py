"""The history's schema, step by step; run from code (upgrade.py), never by hand."""

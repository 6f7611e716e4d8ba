"""A study: one settings file, every stage from data to report, each skipped when its inputs have not changed."""

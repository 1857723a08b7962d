"""Columns as Postgres printed them → what clients have of them: types, dates, arrays, whole rows."""

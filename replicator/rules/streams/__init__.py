"""`streams` → Definitions: joins and subqueries taken apart into variants of buckets."""

"""A machine with nothing set up → a Postgres, a small clinic, and its traffic to look at."""

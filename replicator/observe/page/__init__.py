"""The page at / of a server, what it asks for, and /metrics."""

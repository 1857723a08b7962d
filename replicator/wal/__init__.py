"""What Postgres says: bytes of the write-ahead log → Transactions of Changes."""

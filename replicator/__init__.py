"""Postgres WAL → each user's rows as verifiable histories → offline-first apps and an EHR.

The stations, in the order the data passes them:

    wal/       bytes of the write-ahead log → Transactions of Changes
    rules/     Change × Rules → Puts and Removes
    buckets/   Puts and Removes → Ops and a Checkpoint, in one storage transaction

`replicate.py` walks through them in one page; read it first.
"""

__version__ = "0.1.0"

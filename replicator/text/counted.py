"""A number and a noun → words. No I/O."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """`1 table`, `2 tables`"""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"

"""A path → the text of a file a person wrote, or what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from replicator.errors import ConfigError

#: Nobody writes a longer one by hand; reading stops here, also when the path is a device without end.
LIMIT_BYTES = 1 << 20


def read(path: Path, hint: str = "") -> str:
    """The whole text, without a byte order mark; ConfigError names the file and never its content."""
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the path.
        reason = getattr(error, "strerror", None) or "not a path"
        raise ConfigError(f"{path}: cannot be read: {reason}", hint) from None
    if len(content) > LIMIT_BYTES:
        raise ConfigError(f"{path}: larger than {LIMIT_BYTES >> 20} MiB", hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8", "Save the file as UTF-8.") from None

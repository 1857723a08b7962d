"""The configuration's keys: what may be written, what it means, and its defaults."""

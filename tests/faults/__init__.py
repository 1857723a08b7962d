"""One disaster a file: what happens, and what must hold afterwards."""

"""The project in this directory → an editable wheel, written by hand.

Where the directory holds two named pipes, the build says in `reached` that it is in the middle of its
work, and goes on when `go on` is closed by who holds it. Every build leaves a line in `builds`.
"""

import os
import zipfile
from pathlib import Path

INFO = "tiny-1.dist-info"


def wait() -> None:
    """Opened in these ways, neither pipe can keep us when nobody is at its other end any more."""
    os.write(os.open("reached", os.O_RDWR), b"!")
    go_on = os.open("go on", os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(go_on, True)
    os.read(go_on, 1)


def build_editable(
    wheel_directory: str, config_settings: object = None, metadata_directory: object = None
) -> str:
    if Path("reached").exists():
        wait()
    if os.access(".", os.W_OK):
        with open("builds", "a") as builds:
            builds.write("built\n")
    extras = "Provides-Extra: demo\nProvides-Extra: test\n"
    files = {
        "tiny.pth": f"{Path.cwd()}\n",
        f"{INFO}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: 1\n{extras}",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/entry_points.txt": "[console_scripts]\nreplicator = tiny:main\n",
    }
    files[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{INFO}/RECORD"))
    with zipfile.ZipFile(Path(wheel_directory, "tiny-1-py3-none-any.whl"), "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return "tiny-1-py3-none-any.whl"

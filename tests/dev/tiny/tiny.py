"""The command line → itself, printed."""

import sys


def main() -> None:
    print("tiny", *sys.argv[1:])

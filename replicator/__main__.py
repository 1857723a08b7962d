"""`replicator`, or `python -m replicator` → the command line."""

import signal


def main() -> None:
    # Until there is something to end in good order, Ctrl-C just ends: importing takes a moment.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from replicator.cli import main as command_line

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()

"""The program `clm`, also as `python -m clm_core`: a signal ends it without a traceback, even while it starts."""

import signal


def main() -> int:
    """Run the command of the command line, and return its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Nothing catches the error that it raises, yet and at the end.
    from clm_core.screen import signals, standard_streams

    standard_streams.open_closed()
    with signals.taken():
        from clm_core import cli

        code = cli.main()
        signals.leave(code)
    return code


if __name__ == "__main__":
    raise SystemExit(main())

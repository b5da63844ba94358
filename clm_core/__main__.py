"""`python -m clm_core`, the same as the command `clm`."""

from clm_core.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

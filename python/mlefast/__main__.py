"""``python -m mlefast``: the command line."""

from __future__ import annotations

from mlefast.cli import main

if __name__ == "__main__":
    main()

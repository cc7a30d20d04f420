"""`python -m agenthub`: the same as the `agenthub` command."""

from __future__ import annotations

from agenthub.cli import main

if __name__ == "__main__":
    main()

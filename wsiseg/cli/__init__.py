"""The command line, one file a command. It prints and never computes, and imports late."""

from __future__ import annotations


def main() -> None:
    """Run the command that `sys.argv` names; what `wsiseg` on the command line calls."""
    from wsiseg.cli.app import app
    from wsiseg.memory import keep_memory

    keep_memory()
    app()

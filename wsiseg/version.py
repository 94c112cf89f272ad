"""The version, where every layer may read it."""

from __future__ import annotations

import subprocess
from pathlib import Path

__version__ = "0.1.0"


def commit() -> str | None:
    """The git commit of this code, with "+" where files differ from it; None where it is no git checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=True).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "wsiseg", "configs"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+" if changes.strip() else "")

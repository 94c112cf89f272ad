import re

from wsiseg.version import __version__, commit


def test_it_is_a_version_and_a_commit_or_none():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert re.fullmatch(r"[0-9a-f]{40}\+?", commit() or 40 * "0")

"""The next thing is made while the one before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from wsiseg.signals import held

Item = TypeVar("Item")


def ahead(items: Iterable[Item], begin: Callable[[], object] | None = None) -> Iterator[Item]:
    """The items in their order, each made in a thread while the one before it is used; `begin` is called there first.

    Ctrl-C waits for the item that is being made.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "wsiseg-ahead", begin or (lambda: None)) as thread:
        with held():
            following = thread.submit(next, iterator, None)
        while True:
            with held():
                item = following.result()
                if item is None:
                    return
                following = thread.submit(next, iterator, None)
            yield item

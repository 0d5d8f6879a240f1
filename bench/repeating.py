"""Repeats work in a thread, such as sending packets, while something is measured or tested."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(work: Callable[[], object]) -> Iterator[None]:
    """Call ``work`` again and again within the context; the last call ends before the context does."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

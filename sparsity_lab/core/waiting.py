"""A line in the log every few seconds while long work says nothing itself."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

log = logging.getLogger(__name__)

INTERVAL = 8.0  # seconds


@contextmanager
def told(what: str, interval: float = INTERVAL) -> Iterator[None]:
    """Log `what` and the seconds that the block has taken, every `interval` seconds until it ends."""
    ended, began = threading.Event(), monotonic()

    def tell() -> None:
        while not ended.wait(interval):
            log.info("%s: %.0f s", what, monotonic() - began)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()

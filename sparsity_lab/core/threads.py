"""How many cores this process uses: those that the system gives it, or fewer if the config says so."""

from sparsity_lab.core.processors import processors


class _Limit:
    threads: int | None = None


def limit_threads(threads: int | None) -> None:
    """Use at most `threads` cores from now on; None means all that the system gives."""
    _Limit.threads = threads


def usable_threads() -> int:
    """Return the number of threads or processes for work that scales with cores."""
    given = processors()
    return given if _Limit.threads is None else max(1, min(given, _Limit.threads))

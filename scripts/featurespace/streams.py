"""Reading ahead and writing behind: the next block is read and the last one written while this one is computed with.

One thread each, and a bounded number of blocks: reading and writing files, checksums and PyTorch's arithmetic leave
the interpreter's lock to others. Nothing here knows what a block is.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Iterate over items that a thread fetches ahead, in order.

    While the consumer works on one item, `depth` more are fetched or being fetched. The moment it asks for the next,
    before it lets go of the last, there may be depth + 2 of them alive. Whoever stops early closes the iterator
    (`contextlib.closing`; a `for` loop that is left closes it when nothing else refers to it): the fetch that is under
    way ends, no other begins, and `items`, if it is a generator, is closed.

    Parameters
    ----------
    items
        Iterated over in the thread.
    depth
        At least 1.

    Raises
    ------
    Exception
        Whatever `items` raises, in its place among the items.
    """
    if depth < 1:
        raise ValueError(f"depth {depth} is less than 1")
    return _read_ahead(items, depth)


def _read_ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    iterator = iter(items)

    def fetch() -> list[T]:
        return list(islice(iterator, 1))  # empty at the end

    executor = ThreadPoolExecutor(1, "read-ahead")
    try:
        pending = deque(executor.submit(fetch) for _ in range(depth))
        while fetched := pending.popleft().result():
            pending.append(executor.submit(fetch))
            yield fetched.pop()  # no reference stays here, so the consumer decides how long the item lives
    finally:
        executor.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()


class WriteBehind:
    """Calls functions in a thread, one after another, while the caller goes on: a context manager.

    Leaving the context waits for all calls. After an error in its body the calls that have not begun are dropped.

    Parameters
    ----------
    depth
        How many calls may wait or run; `submit` blocks until there are fewer. At least 1.
    """

    def __init__(self, depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth} is less than 1")
        self.depth = depth
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        self._executor = ThreadPoolExecutor(1, "write-behind")
        return self

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have `function(*args)` called in the thread, after all that were submitted before.

        What the arguments hold must not change until the call is done. It is at the latest when `depth` more have
        been submitted: depth + 1 buffers, used in turn, are never overwritten too early. The future that is returned
        says so of any one.

        Raises
        ------
        Exception
            Whatever an earlier call raised. The caller must leave the context then.
        """
        while self._pending and (len(self._pending) >= self.depth or self._pending[0].done()):
            self._pending.popleft().result()
        future = self._executor.submit(function, *args)
        self._pending.append(future)
        return future

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while self._pending and kind is None:
                self._pending.popleft().result()
        finally:
            self._executor.shutdown(cancel_futures=True)
            self._pending.clear()

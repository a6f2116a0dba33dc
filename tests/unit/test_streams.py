"""Reading ahead and writing behind: order, bounds, errors, and threads that end."""

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest

from featurespace.streams import WriteBehind, read_ahead

PATIENCE = 10.0  # seconds after which a thread that should do something is taken to hang


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.001)


def stream_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith(("read-ahead", "write-behind"))]


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    assert stream_threads() == []


# --- read_ahead ---


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 5, 100])
def test_all_items_come_in_order(n: int, depth: int) -> None:
    assert list(read_ahead(range(n), depth)) == list(range(n))


def test_items_that_are_none_or_false_are_items() -> None:
    assert list(read_ahead([None, 0, False, None])) == [None, 0, False, None]


@pytest.mark.parametrize("depth", [1, 3])
def test_it_reads_so_far_ahead_and_no_further(depth: int) -> None:
    fetched = []

    def source() -> Iterator[int]:
        for i in range(20):
            fetched.append(i)
            yield i

    with closing(read_ahead(source(), depth)) as stream:
        for i in range(5):
            assert next(stream) == i
            # the item in hand and `depth` more, fetched while nothing is asked for
            wait_until(lambda due=i + 1 + depth: len(fetched) >= due)
            time.sleep(0.02)
            assert len(fetched) == i + 1 + depth


def test_items_are_fetched_in_one_other_thread() -> None:
    names = set()

    def source() -> Iterator[int]:
        for i in range(5):
            names.add(threading.current_thread().name)
            yield i

    assert list(read_ahead(source())) == list(range(5))
    assert len(names) == 1
    assert threading.current_thread().name not in names


def test_an_error_comes_in_its_place_with_its_type() -> None:
    def source() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError(5, "the disk is gone")

    got = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in read_ahead(source(), depth=4):
            got.append(item)
    assert got == [0, 1]


def test_an_iterable_that_cannot_begin_raises() -> None:
    class Unreadable:
        def __iter__(self) -> Iterator[int]:
            raise OSError("not there")

    with pytest.raises(OSError, match="not there"):
        list(read_ahead(Unreadable()))


def test_stopping_early_closes_the_source_and_ends_the_thread() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    with closing(read_ahead(source())) as stream:
        assert next(stream) == 0
        assert stream_threads()
    assert closed == [True]
    assert stream_threads() == []


def test_a_loop_that_is_left_ends_the_thread() -> None:
    for item in read_ahead(iter(range(1000))):
        if item == 3:
            break
    wait_until(lambda: not stream_threads())


def test_an_error_in_the_consumer_ends_the_thread() -> None:
    with pytest.raises(ZeroDivisionError), closing(read_ahead(range(1000))) as stream:
        for item in stream:
            1 // (item - 2)


def test_stopping_while_a_fetch_is_under_way_waits_for_no_other() -> None:
    fetched = []

    def source() -> Iterator[int]:
        for i in range(1000):
            time.sleep(0.02)
            fetched.append(i)
            yield i

    with closing(read_ahead(source(), depth=50)) as stream:
        assert next(stream) == 0
    assert len(fetched) <= 3


def test_an_iterator_that_never_began_has_no_thread() -> None:
    stream = read_ahead(range(3))
    assert stream_threads() == []
    stream.close()


def test_items_that_are_done_with_are_let_go() -> None:
    alive: list[weakref.ref[np.ndarray]] = []

    def source() -> Iterator[np.ndarray]:
        for _ in range(10):
            block = np.zeros(3)
            alive.append(weakref.ref(block))
            yield block
            del block

    most = 0
    for _ in read_ahead(source(), depth=1):
        time.sleep(0.005)
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 3
    assert sum(ref() is not None for ref in alive[:-1]) == 0


# --- WriteBehind ---


def test_calls_are_made_in_order_and_all_before_the_end() -> None:
    done = []
    with WriteBehind() as writer:
        for i in range(50):
            writer.submit(done.append, i)
    assert done == list(range(50))


def test_the_caller_goes_on_meanwhile() -> None:
    may_write, written = threading.Event(), threading.Event()

    def write() -> None:
        assert may_write.wait(PATIENCE)
        written.set()

    with WriteBehind() as writer:
        writer.submit(write)
        assert not written.is_set()
        may_write.set()
    assert written.is_set()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_submitting_waits_when_as_many_calls_wait_as_may(depth: int) -> None:
    may_write = threading.Event()
    submitted = []

    def submit_all(writer: WriteBehind) -> None:
        for i in range(depth + 3):
            writer.submit(may_write.wait, PATIENCE)
            submitted.append(i)

    with WriteBehind(depth) as writer:
        caller = threading.Thread(target=submit_all, args=(writer,))
        caller.start()
        wait_until(lambda: len(submitted) >= depth)
        time.sleep(0.05)
        assert len(submitted) == depth
        may_write.set()
        caller.join(PATIENCE)
        assert len(submitted) == depth + 3


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_one_buffer_more_than_the_depth_used_in_turn_is_never_overwritten_too_early(depth: int) -> None:
    buffers = [np.zeros(1) for _ in range(depth + 1)]
    written = []

    def write(buffer: np.ndarray) -> None:
        time.sleep(0.001)
        written.append(float(buffer[0]))

    with WriteBehind(depth) as writer:
        for i in range(40):
            buffer = buffers[i % len(buffers)]
            buffer[0] = i
            writer.submit(write, buffer)
    assert written == [float(i) for i in range(40)]


def fail() -> None:
    raise OSError(28, "No space left on device")


def test_a_failed_call_raises_at_the_next_submit() -> None:
    done = []
    with pytest.raises(OSError, match="No space left"), WriteBehind() as writer:
        failed = writer.submit(fail)
        wait_until(failed.done)
        writer.submit(done.append, 1)
    assert done == []


def test_a_failed_call_raises_at_the_end() -> None:
    reached = False
    with pytest.raises(OSError, match="No space left"), WriteBehind() as writer:
        writer.submit(fail)
        reached = True
    assert reached


def test_a_caller_that_waits_for_room_hears_of_the_failure() -> None:
    may_fail = threading.Event()

    def fail_later() -> None:
        assert may_fail.wait(PATIENCE)
        fail()

    with pytest.raises(OSError, match="No space left"), WriteBehind(1) as writer:
        writer.submit(fail_later)
        threading.Timer(0.05, may_fail.set).start()
        writer.submit(print)


def test_an_error_in_the_body_stays_and_drops_what_has_not_begun() -> None:
    may_write, began, done = threading.Event(), threading.Event(), []

    def write() -> None:
        began.set()
        assert may_write.wait(PATIENCE)

    with pytest.raises(ZeroDivisionError), WriteBehind() as writer:
        writer.submit(write)
        writer.submit(done.append, 1)
        assert began.wait(PATIENCE)
        threading.Timer(0.05, may_write.set).start()
        1 // 0  # noqa: B018
    assert done == []


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_of_nothing_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="less than 1"):
        read_ahead([], depth)
    with pytest.raises(ValueError, match="less than 1"):
        WriteBehind(depth)

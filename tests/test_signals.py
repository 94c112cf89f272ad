"""Ctrl-C is answered soon, and never where it would leave a lock taken."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import pytest

from wsiseg.ahead import ahead
from wsiseg.execute import threads
from wsiseg.execute._window import window
from wsiseg.signals import held


@pytest.fixture(autouse=True)
def ctrl_c():
    """As a program has it: some libraries leave a handler of their own behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_soon(seconds=0.3):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_a_signal_waits_until_it_may_strike():
    reached = []

    def struck():
        with held() as signals:
            signal.raise_signal(signal.SIGINT)
            reached.extend(signals)
        reached.append("after")

    with pytest.raises(KeyboardInterrupt):
        struck()
    assert reached == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_is_not_lost_where_the_block_fails():
    def failing():
        with held():
            signal.raise_signal(signal.SIGINT)
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        failing()
    assert isinstance(caught.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_a_batch_system_are_called_in_the_order_of_their_signals(monkeypatch):
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        with held():
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert len(came) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_beside_the_main_thread_nothing_is_held():
    found = []

    def beside():
        with held() as signals:
            found.append((list(signals), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    assert found == [([], signal.default_int_handler)]


IN_THE_LOCK = """
import faulthandler, signal, sys, threading, time
from wsiseg.execute import threads

def strike(frame, event, _):
    above = frame.f_back and frame.f_back.f_code.co_qualname
    taken = event == "return" and frame.f_code.co_qualname == "Condition.__enter__"
    if taken and above == "Semaphore.acquire" and threading.active_count() > 1:
        sys.settrace(None)
        print("struck", flush=True)
        signal.raise_signal(signal.SIGINT)
    return strike

faulthandler.dump_traceback_later(30, exit=True)
with threads.start(workers=1) as pool:
    sys.settrace(strike)
    list(pool.map(time.sleep, [1, 1]))
"""


def test_ctrl_c_just_as_a_pool_takes_its_lock_does_not_hang():
    """Between taking and letting go: a worker waited for that lock for ever, and the program for the worker."""
    done = subprocess.run([sys.executable, "-c", IN_THE_LOCK], capture_output=True, text=True, check=False)
    assert done.stdout == "struck\n"
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_a_task_is_submitted_whole_or_not_at_all():
    begun, submitted = [], []

    def submit(task):
        begun.append(task)
        signal.raise_signal(signal.SIGINT)
        submitted.append(task)
        future = Future()
        future.set_result(task)
        return future

    with pytest.raises(KeyboardInterrupt):
        list(window(submit, range(10), limit=4))
    assert begun == submitted == [0, 1, 2, 3]


def test_ctrl_c_is_answered_while_a_task_takes_long():
    gate, began = threading.Event(), time.monotonic()
    interrupt_soon()
    try:
        with threads.start(workers=1) as pool:
            results = pool.map(lambda _: gate.wait(60), range(5))
            with pytest.raises(KeyboardInterrupt):
                next(results)
            assert time.monotonic() - began < 30
            gate.set()
    finally:
        gate.set()


def test_what_is_made_ahead_comes_in_order_and_whole():
    made = []

    def make(i):
        made.append(i)
        return i

    items = ahead(map(make, range(5)))
    assert next(items) == 0
    assert list(items) == [1, 2, 3, 4]
    assert made == [0, 1, 2, 3, 4]
    assert list(ahead([])) == []


def test_what_fails_ahead_fails_where_it_is_used():
    def make(i):
        if i == 2:
            raise ValueError("two")
        return i

    items = ahead(map(make, range(5)))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(items)


def test_ctrl_c_waits_for_what_is_made_ahead():
    def make(i):
        if i == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
        return i

    items = ahead(map(make, range(3)))
    assert next(items) == 0
    with pytest.raises(KeyboardInterrupt):
        next(items)

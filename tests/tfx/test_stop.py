"""Being asked to stop: only noted where work can end well, at once where it has nothing to keep."""

import os
import signal
import threading

import pytest

from lmworks.tfx.process import Stopped, stoppable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted(number):
    before = signal.getsignal(number)
    with stoppable() as stop:
        assert not stop.by
        os.kill(os.getpid(), number)
        assert stop.by == number.name
        with pytest.raises(Stopped), stop.at_once():
            pytest.fail("what has nothing to keep is not begun")
    assert signal.getsignal(number) is before


def test_at_once_where_there_is_nothing_to_keep():
    with stoppable() as stop, pytest.raises(Stopped, match="SIGTERM"), stop.at_once():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_ctrl_c_means_it():
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.by == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_leaves_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]

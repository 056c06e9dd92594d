"""A log that is no terminal hears something every half minute, whatever a command is at."""

import time

import pytest
from child_processes import wait_until

from mmfuse import pulse
from mmfuse.pulse import Pulse, beating, counted


class Clock:
    """Stands still unless it is moved."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def heard():
    """A pulse, its clock, and the lines it has printed; `heard(seconds)` lets time pass, with a look each second."""
    clock, lines = Clock(), []
    made = Pulse(lines.append, clock)

    def passes(seconds):
        for _ in range(seconds):
            clock.seconds += 1
            made.beat()
        return [lines.pop(0) for _ in list(lines)]

    passes.pulse = made
    return passes


def test_nothing_is_said_before_half_a_minute_and_then_every_half_minute(heard):
    heard.pulse.now("features", 0, 900)
    assert heard(29) == []
    heard.pulse.now("features", 300, 900)
    assert heard(1) == ["features: 300/900, 10/s, about 60 s left"]
    heard.pulse.now("features", 301, 900, "1 error")
    assert heard(29) == []
    assert heard(1) == ["features: 301/900, 5.02/s, about 119 s left, 1 error"]


def test_a_phase_that_counts_nothing_is_told_too(heard):
    heard.pulse.now("scores of findings")
    assert heard(90) == [f"scores of findings: {seconds} s" for seconds in (30, 60, 90)]
    heard.pulse.now("hashing images", 0, 10)
    assert heard(30) == ["hashing images: 0/10, 30 s"]


def test_what_is_resumed_is_timed_from_there(heard):
    heard.pulse.now("sharding", 1000, 1600)
    heard.pulse.now("sharding", 1300, 1600)
    assert heard(30) == ["sharding: 1300/1600, 10/s, about 30 s left"]


def test_other_lines_count_as_words(heard):
    for _ in range(5):
        assert heard(29) == []
        heard.pulse.said()
    assert len(heard(30)) == 1


def test_quick_phases_one_after_the_other_do_not_hide_each_others_silence(heard):
    found = []
    for i in range(100):
        heard.pulse.now(f"phase {i}")
        found += heard(1)
    assert len(found) == 3


def test_who_waits_for_others_is_silent_until_something_is_done(heard):
    heard.pulse.rest()
    assert heard(500) == []
    heard.pulse.now("predicting", 1, 2)
    assert len(heard(30)) == 1


def test_items_are_counted_as_they_are_taken(monkeypatch):
    seen = []
    monkeypatch.setattr(pulse, "now", lambda *args: seen.append(args))
    assert list(counted("ab", "letters", 2)) == ["a", "b"]
    assert seen == [("letters", 0, 2), ("letters", 1, 2)]


def test_it_is_told_where_there_is_no_terminal_and_only_there(monkeypatch, capfd):
    monkeypatch.setattr(pulse, "SECONDS", 0.0)
    monkeypatch.setattr(pulse, "LOOK", 0.001)
    for shown in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda shown=shown: shown, raising=False)
        with beating():
            time.sleep(0.1)
            assert capfd.readouterr().err == ""  # before anything is begun
            pulse.now("reading the rows")
            if shown:
                time.sleep(0.2)
                assert capfd.readouterr().err == ""
            else:
                wait_until(lambda: "reading the rows: " in capfd.readouterr().err, "a beat")

import errno
import json
import multiprocessing
import os
import threading
import time

import pytest

from wsiseg.cohort.lease import Watch, acquire, look, owner_of, publish, read


def silent(path, seconds):
    """Make a lease look as if its owner had said nothing for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_one_holder_at_a_time(tmp_path):
    path = tmp_path / "0.lease"
    first = acquire(path, job="12_3")
    assert first is not None
    assert first.held()
    assert read(path)["job"] == "12_3"
    assert acquire(path) is None
    first.leave()
    assert not path.exists()
    second = acquire(path)
    assert second is not None
    second.leave()
    assert [*tmp_path.iterdir()] == []


def test_a_living_owner_is_heard(tmp_path):
    path = tmp_path / "0.lease"
    owner = acquire(path, patience=0.9)
    silent(path, 100)
    time.sleep(0.5)
    assert look(path).silence(tmp_path) < 50
    owner.leave()
    assert look(path) is None


def test_a_dead_owners_lease_is_taken_and_its_death_counted(tmp_path):
    path = tmp_path / "0.lease"
    path.write_text(json.dumps({"token": "x", "done_at_start": 4, "deaths": 1, "host": "n", "pid": 1}))
    assert acquire(path) is None
    silent(path, 100)
    heir = acquire(path, done=4)
    assert heir.deaths == 2
    heir.leave()


def test_a_death_after_progress_counts_as_the_first(tmp_path):
    path = tmp_path / "0.lease"
    path.write_text(json.dumps({"token": "x", "done_at_start": 4, "deaths": 2}))
    silent(path, 100)
    heir = acquire(path, done=5)
    assert heir.deaths == 1
    heir.leave()


def test_an_unreadable_lease_of_the_dead_is_taken_too(tmp_path):
    path = tmp_path / "0.lease"
    path.write_text("{")
    silent(path, 100)
    heir = acquire(path)
    assert heir is not None
    heir.leave()


def test_an_owner_that_was_thought_dead_learns_it(tmp_path):
    path = tmp_path / "0.lease"
    slow = acquire(path)
    silent(path, 100)
    heir = acquire(path)
    assert heir.held()
    assert not slow.held()
    assert slow.lost.is_set()
    slow.say(tiles=3)
    slow.leave()
    assert read(path)["token"] == heir.token
    heir.leave()


def test_little_patience_does_not_make_a_slow_beat_a_dead_owner(tmp_path):
    """An owner that beats every 10 s is heard for 50, whatever the patience of who looks."""
    path = tmp_path / "0.lease"
    owner = acquire(path)
    silent(path, 30)
    assert acquire(path, patience=5) is None
    owner.leave()


def test_nobody_is_robbed_by_who_has_not_watched_for_a_while(tmp_path):
    """Clocks of clients may differ: what looks old must also stay as it is."""
    path, watch = tmp_path / "0.lease", Watch(1.0)
    path.write_text(json.dumps({"token": "x"}))
    silent(path, 100)
    assert acquire(path, patience=1.0, watch=watch) is None
    time.sleep(0.3)
    heir = acquire(path, patience=1.0, watch=watch)
    assert heir is not None
    heir.leave()


def test_an_owner_whose_lease_is_away_for_a_moment_keeps_it(tmp_path):
    path = tmp_path / "0.lease"
    owner = acquire(path)
    threading.Timer(0.3, (tmp_path / "aside").rename, [path]).start()
    path.rename(tmp_path / "aside")
    assert owner.held()
    owner.leave()


def test_what_cannot_be_published_is_kept(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.write_text("hours of work")

    def full(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="quota"):
        publish(made, tmp_path / "final")
    assert made.read_text() == "hours of work"


def test_progress_is_there_for_others_to_read(tmp_path):
    owner = acquire(tmp_path / "0.lease")
    owner.say(tiles=3, of=9)
    assert {"tiles": 3, "of": 9}.items() <= read(owner.path).items()
    owner.leave()


def contend(folder, start, wins, round_):
    start.wait()
    lease = acquire(folder / f"{round_}.lease", patience=50)
    if lease is not None:
        wins.put((round_, lease.token))


@pytest.mark.parametrize("left_by_the_dead", [False, True])
def test_of_many_that_race_one_gets_it(tmp_path, left_by_the_dead):
    """Fifty races of four, for a free lease and for a dead owner's."""
    context = multiprocessing.get_context("fork")
    for round_ in range(50):
        path = tmp_path / f"{round_}.lease"
        if left_by_the_dead:
            path.write_text(json.dumps({"token": "dead"}))
            silent(path, 100)
        start, wins = context.Event(), context.SimpleQueue()
        racers = [context.Process(target=contend, args=(tmp_path, start, wins, round_)) for _ in range(4)]
        for racer in racers:
            racer.start()
        start.set()
        for racer in racers:
            racer.join()
        winners = []
        while not wins.empty():
            winners.append(wins.get())
        assert len(winners) == 1
        assert read(path)["token"] == winners[0][1]
    assert len([*tmp_path.iterdir()]) == 50


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_published_first_stays(tmp_path, folder):
    made, late = tmp_path / "made", tmp_path / "late"
    for path in (made, late):
        if folder:
            path.mkdir()
        (path / "x" if folder else path).write_text(path.name)
    final = tmp_path / "final"
    assert publish(made, final)
    assert not publish(late, final)
    assert (final / "x" if folder else final).read_text() == "made"
    assert not made.exists()


def test_owners_are_told_by_what_is_known_of_them():
    assert owner_of({"host": "n", "pid": 3}) == "process 3 on n"
    assert owner_of({"host": "n"}) == "n"
    assert owner_of({}) == "an unknown host"

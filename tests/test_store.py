"""The working store: what is in it is complete, belongs to one process and to one set of settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg import nuclei
from wsiseg.errors import StoreError
from wsiseg.nuclei import NucleusTable
from wsiseg.store import from_arrays, store_path, to_arrays, working_store

SETTINGS = {"halo": 128, "mpp": 0.25, "model": "abc", "roi": None}


def table(
    n: int, *, seed: int = 0, dim: int | None = 2, columns: tuple[str, ...] = ("Area µm^2",)
) -> NucleusTable:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 9, n)
    return NucleusTable(
        mpp=0.25,
        centroid=rng.uniform(0, 100, (n, 2)),
        area=rng.uniform(10, 90, n),
        score=rng.uniform(0, 1, n).astype(np.float32),
        label=np.zeros(n, np.int32),
        tile=rng.integers(0, 5, n).astype(np.int32),
        vertices=rng.uniform(0, 100, (sizes.sum(), 2)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        columns={name: rng.uniform(0, 1, n).astype(np.float32) for name in columns},
        embedding=None if dim is None else rng.normal(size=(n, dim)).astype(np.float32),
    )


def same(a: NucleusTable, b: NucleusTable) -> bool:
    left, right = to_arrays(a), to_arrays(b)
    return left.keys() == right.keys() and all(
        left[k].dtype == right[k].dtype and np.array_equal(left[k], right[k]) for k in left
    )


@given(
    st.integers(0, 5), st.integers(0, 99), st.sampled_from([None, 16]), st.sampled_from([(), ("a", "b: µ")])
)
def test_a_table_taken_apart_comes_back_whole(
    n: int, seed: int, dim: int | None, columns: tuple[str, ...]
) -> None:
    original = table(n, seed=seed, dim=dim, columns=columns)
    assert same(from_arrays(to_arrays(original)), original)


def test_what_is_committed_is_there_after_reopening(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        for task in (2, 0, 11):
            store.commit(task, table(3, seed=task))
    with working_store(tmp_path / "s", SETTINGS) as store:
        assert store.done() == {0, 2, 11}
        kept = list(store.tables())
        assert [same(t, table(3, seed=s)) for t, s in zip(kept, (0, 2, 11), strict=True)] == [True] * 3


def test_one_task_gives_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    with working_store(tmp_path / "a", SETTINGS) as a, working_store(tmp_path / "b", SETTINGS) as b:
        a.commit(0, table(4))
        a.commit(1, table(4, seed=1))
        b.commit(1, table(4, seed=1))
        b.commit(0, table(4))
        for name in ("000000.npz", "000001.npz", "settings.json"):
            assert (a.path / name).read_bytes() == (b.path / name).read_bytes()


def test_an_empty_table_is_a_finished_task(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, nuclei.empty(0.25, columns=("a",), dim=2))
        assert store.done() == {0}
        assert len(store.read(0)) == 0


def test_a_store_without_a_finished_task_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), working_store(tmp_path / "s", SETTINGS):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_took_the_place_of_this_one_stays(tmp_path: Path) -> None:
    """As where a cohort takes an owner for dead that is only slow: its folder is put aside."""
    path = tmp_path / "store"
    with working_store(path, SETTINGS):
        path.rename(tmp_path / "aside")
        with working_store(path, SETTINGS) as other:
            other.commit(0, table(1))
        (path / "000000.npz").unlink()  # it has finished nothing yet
    assert (path / "lock").exists()


def test_every_setting_that_differs_is_named(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(1))
    changed = {"halo": 64, "mpp": 0.25, "model": "xyz", "roi": None}
    message = r"halo was 128, now 64; model was abc, now xyz.*--overwrite"
    with pytest.raises(StoreError, match=message), working_store(tmp_path / "s", changed):
        pass
    with working_store(tmp_path / "s", SETTINGS) as store:
        assert store.done() == {0}


def test_replacing_a_store_of_other_settings_forgets_its_tasks(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(1))
    with working_store(tmp_path / "s", {**SETTINGS, "halo": 64}, replace=True) as store:
        assert store.done() == frozenset()


def test_replacing_a_store_of_the_same_settings_goes_on(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(1))
    with working_store(tmp_path / "s", SETTINGS, replace=True) as store:
        assert store.done() == {0}


def test_a_half_written_file_is_no_finished_task(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(1))
        (store.path / "000001.npz.tmp").write_bytes(b"PK")
    with working_store(tmp_path / "s", SETTINGS) as store:
        assert store.done() == {0}
        assert not list(store.path.glob("*.tmp"))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(9))
        file = store.path / "000000.npz"
        file.write_bytes(file.read_bytes()[:300])
        with pytest.raises(StoreError, match=r"000000\.npz: damaged.*delete this file"):
            store.read(0)


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, os, pathlib; from wsiseg.store import working_store\n"
        "with working_store(pathlib.Path(sys.argv[1]), {'a': 1}):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
        "    os._exit(9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="another process"), working_store(tmp_path / "s", {"a": 1}):
            pass
        other.communicate("")
        assert other.returncode == 9
    with working_store(tmp_path / "s", {"a": 1}) as store:
        assert store.done() == frozenset()


def test_two_in_one_process_are_told_apart_too(tmp_path: Path) -> None:
    with (
        working_store(tmp_path / "s", SETTINGS),
        pytest.raises(StoreError, match="another process"),
        working_store(tmp_path / "s", SETTINGS),
    ):
        pass


def test_removed_means_gone(tmp_path: Path) -> None:
    with working_store(tmp_path / "s", SETTINGS) as store:
        store.commit(0, table(1))
        store.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StoreError, match=r"file.s: cannot be written.*--work-dir"),
        working_store(tmp_path / "file" / "s", SETTINGS),
    ):
        pass


def test_the_store_lies_beside_the_output_or_in_the_work_folder() -> None:
    assert store_path(Path("a/b.zip")) == Path("a/.b.zip.wsiseg")
    assert store_path(Path("a/b.zip"), Path("w")) == Path("w/.b.zip.wsiseg")


def test_nothing_unpickles(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("exit 1",)

    with working_store(tmp_path / "s", SETTINGS) as store:
        np.savez(store.path / "000000.npz", mpp=np.array([Trap()], dtype=object))
        with pytest.raises(StoreError, match="damaged"):
            store.read(0)

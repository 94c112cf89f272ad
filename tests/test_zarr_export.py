"""The store in zarr: whatever happens to one of its files is noticed, and never read as zeros."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_store import same, table

from wsiseg import nuclei
from wsiseg.errors import StoreError
from wsiseg.export import ExportInfo
from wsiseg.export.zarr import read_store, write
from wsiseg.nuclei import NucleusTable, Rings
from wsiseg.regions import Region

SQUARE = np.array([[0.0, 0.0], [0.0, 9.0], [9.0, 9.0], [9.0, 0.0]])
INFO = ExportInfo(
    fingerprint="abc",
    mpp=0.25,
    regions=(Region(SQUARE * 4, (SQUARE, SQUARE + 12), "Tumour"), Region(SQUARE + 50)),
    provenance={"model": {"name": "tiny"}, "settings": {"roi": None}},
)
TABLE = replace(table(300, columns=("Area µm^2", "Nucleus/Cell area ratio")), embedding=None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    assert (
        write(tmp_path / "a.zarr", iter([TABLE.take(np.arange(100)), TABLE.take(np.arange(100, 300))]), INFO)
        == 300
    )
    return tmp_path / "a.zarr"


def test_everything_comes_back(store: Path) -> None:
    info, pieces = read_store(store)
    assert same(nuclei.concatenate(list(pieces)), TABLE)
    assert (info.fingerprint, info.mpp, info.provenance) == (INFO.fingerprint, INFO.mpp, INFO.provenance)
    for ours, theirs in zip(INFO.regions, info.regions, strict=True):
        assert (ours.name, ours.exterior.tolist()) == (theirs.name, theirs.exterior.tolist())
        assert [hole.tolist() for hole in ours.holes] == [hole.tolist() for hole in theirs.holes]


def test_cells_come_back_with_their_nuclei(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    offsets = np.cumsum([0, *rng.integers(3, 9, len(TABLE))])
    rings = Rings(rng.random((offsets[-1], 2)).astype(np.float32), offsets)
    cells = replace(TABLE, cells=rings)
    write(tmp_path / "c.zarr", iter([cells.take(np.arange(120)), cells.take(np.arange(120, 300))]), INFO)
    assert same(nuclei.concatenate(list(read_store(tmp_path / "c.zarr")[1])), cells)
    assert sum(file.is_file() for file in (tmp_path / "c.zarr").rglob("*")) <= 50
    with pytest.raises(ValueError, match="some tables carry cells"):
        nuclei.concatenate([cells, TABLE])


def test_it_comes_in_pieces_that_bound_memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.export.zarr.PIECE", 128)
    pieces = list(read_store(store)[1])
    assert [len(piece) for piece in pieces] == [128, 128, 44]
    assert same(nuclei.concatenate(pieces), TABLE)


def test_it_is_written_a_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsiseg.export._growing.ROWS", 16)
    monkeypatch.setattr("wsiseg.export._growing.FILE_BYTES", 1024)
    written: list[int] = []

    def tables() -> Iterator[NucleusTable]:
        for start in range(0, len(TABLE), 7):
            yield TABLE.take(np.arange(start, min(start + 7, len(TABLE))))
            written.append(len([*tmp_path.glob("*/vertices/c/*/*")]))

    write(tmp_path / "g.zarr", tables(), INFO)
    assert same(nuclei.concatenate(list(read_store(tmp_path / "g.zarr")[1])), TABLE)
    files = -(-len(TABLE.vertices) // 128)  # of 128 corners of 8 bytes
    assert len([*tmp_path.glob("*/vertices/c/*/*")]) == files
    assert np.diff(written).max() <= 2
    assert written[-1] >= files - 1


def test_few_files(store: Path) -> None:
    assert sum(file.is_file() for file in store.rglob("*")) <= 50


@pytest.mark.parametrize("how", ["missing", "cut", "changed"])
def test_damage_to_any_array_is_noticed(how: str, store: Path, tmp_path: Path) -> None:
    files = [file for file in store.rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert len(files) >= 9  # an array of zeros has no file
    for file in files:
        broken = tmp_path / "b.zarr"
        shutil.copytree(store, broken)
        victim = broken / file.relative_to(store)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 255
        victim.write_bytes(content if how == "changed" else content[:-9])
        if how == "missing":
            victim.unlink()
        with pytest.raises(StoreError, match=r"b\.zarr: .*damaged"):
            list(read_store(broken)[1])
        shutil.rmtree(broken)


def test_what_is_no_store_of_ours_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file.zarr").write_text("no folder")
    with pytest.raises(StoreError, match="no such store"):
        read_store(tmp_path / "file.zarr")
    with pytest.raises(StoreError, match="not a store of nuclei"):
        read_store(store / "regions")

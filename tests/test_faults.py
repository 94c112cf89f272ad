"""What goes wrong in the middle of a run: a full disk, a reader that fails. Nothing is lost, and it can go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from slides_made import discs, tiny_model, write_slide

from wsiseg.errors import DeviceError, OutputError, StoreError, TaskError
from wsiseg.geometry import Rect
from wsiseg.maps import Maps
from wsiseg.pipeline import segment_slide
from wsiseg.recipes import spn_ien
from wsiseg.slides.resample import PlanView


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "drawn.tif", discs((500, 420))[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder on a disk of 24 KiB, and what changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk is made with mount, which is not allowed here")

    def resize(size: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", str(folder)], check=True)


def whole(slide: Path, model: Path, folder: Path) -> bytes:
    segment_slide(slide, model=model, tile_size=128, outputs=[folder / "whole.geojson"])
    return (folder / "whole.geojson").read_bytes()


def test_a_full_disk_of_the_store_loses_nothing_that_was_finished(
    slide: Path, model: Path, tmp_path: Path, small_disk: tuple[Path, Callable[[str], None]]
) -> None:
    folder, resize = small_disk
    out = tmp_path / "out.geojson"
    with pytest.raises(StoreError, match="cannot be written \\(No space left on device\\)"):
        segment_slide(slide, model=model, tile_size=128, outputs=[out], work_dir=folder)
    assert not out.exists()
    kept = list((folder / ".out.geojson.wsiseg").glob("[0-9]*.npz"))
    assert kept
    resize("10m")
    segment_slide(slide, model=model, tile_size=128, outputs=[out], work_dir=folder)
    assert out.read_bytes() == whole(slide, model, tmp_path)
    assert not list(folder.iterdir())


def test_a_full_disk_of_the_output_leaves_no_half_file_and_needs_no_second_run(
    slide: Path,
    model: Path,
    tmp_path: Path,
    small_disk: tuple[Path, Callable[[str], None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, resize = small_disk
    out, work = folder / "out.geojson", tmp_path / "work"
    work.mkdir()
    with pytest.raises(OutputError, match="cannot be written \\(No space left on device\\)"):
        segment_slide(slide, model=model, tile_size=128, outputs=[out], work_dir=work)
    assert not list(folder.iterdir())
    resize("10m")

    def never(*_: object) -> None:
        raise AssertionError("everything was found before")

    monkeypatch.setattr("wsiseg.worker.read_tile", never)
    segment_slide(slide, model=model, tile_size=128, outputs=[out], work_dir=work)
    monkeypatch.undo()
    assert out.read_bytes() == whole(slide, model, tmp_path)


def failing(times: float, monkeypatch: pytest.MonkeyPatch) -> list[Rect]:
    """Have the reader fail at the tile whose core begins at (128, 256), so many times; where it did."""
    failed: list[Rect] = []
    read = PlanView.read

    def stumble(self: PlanView, rect: Rect) -> object:
        if (rect.y0, rect.x0) == (128 - 128, 256 - 128) and len(failed) < times:
            failed.append(rect)
            raise OSError("the scanner's disk is away")
        return read(self, rect)

    monkeypatch.setattr(PlanView, "read", stumble)
    return failed


def test_a_tile_that_cannot_be_read_once_is_read_again(
    slide: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(slide, model, tmp_path)
    failed = failing(1, monkeypatch)
    segment_slide(slide, model=model, tile_size=128, outputs=[tmp_path / "out.geojson"])
    assert len(failed) == 1
    assert (tmp_path / "out.geojson").read_bytes() == expected


def test_a_tile_that_cannot_be_read_is_named_and_the_rest_is_kept(
    slide: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(float("inf"), monkeypatch)
    message = (
        r"drawn\.tif: tile 6, from \(y, x\) = \(128, 256\) of the plan, cannot be read: "
        r"OSError: the scanner's disk is away$"
    )
    out = tmp_path / "out.geojson"
    with pytest.raises(TaskError, match=message):
        segment_slide(slide, model=model, tile_size=128, outputs=[out], workers=1)
    assert not out.exists()
    assert list((tmp_path / ".out.geojson.wsiseg").glob("[0-9]*.npz"))
    monkeypatch.undo()
    segment_slide(slide, model=model, tile_size=128, outputs=[out])
    assert out.read_bytes() == whole(slide, model, tmp_path)


def device_of(images_at_most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets the networks run out of memory with more images than that; how many each call had."""
    maps, seen = spn_ien.maps, []

    def crowded(networks: object, settings: object, images: torch.Tensor, origins: object) -> list[Maps]:
        seen.append(len(images))
        if len(images) > images_at_most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return maps(networks, settings, images, origins)  # type: ignore[arg-type]

    monkeypatch.setattr(spn_ien, "maps", crowded)
    return seen


def test_a_device_without_enough_memory_is_given_smaller_pieces(
    slide: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(slide, model, tmp_path)
    seen = device_of(2, monkeypatch)
    out = tmp_path / "out.geojson"
    segment_slide(slide, model=model, tile_size=128, batch_size=4, outputs=[out], workers=1)
    assert {2, 4} <= set(seen)
    assert out.read_bytes() == expected


def test_a_device_without_memory_for_one_tile_is_told(
    slide: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = device_of(0, monkeypatch)
    with pytest.raises(
        DeviceError, match=r"cpu: out of memory with one tile of 384 x 384 px; give a smaller"
    ):
        segment_slide(slide, model=model, tile_size=128, batch_size=4, outputs=[tmp_path / "out.geojson"])
    assert {4, 2, 1} <= set(seen)

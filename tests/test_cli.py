"""The command line: what it says, what it leaves behind, and how it ends when something is wrong."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from slides_made import discs, tiny_model, write_slide
from typer.testing import CliRunner, Result

from wsiseg import __version__
from wsiseg.cli._options import DEFAULT_MODEL
from wsiseg.cli._progress import bar
from wsiseg.cli._report import say
from wsiseg.cli.app import app
from wsiseg.models import DEFAULT, find_model
from wsiseg.progress import Progress
from wsiseg.qupath import check_file


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "drawn.tif", discs((500, 420))[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line on stderr of a command that refused its input."""
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# Segment, export, check, plan: the good way.


def test_a_slide_becomes_files_that_qupath_reads(slide: Path, model: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / f"out{suffix}" for suffix in (".geojson", ".geojson.gz", ".zip", ".zarr")]
    given = [part for output in outputs for part in ("-o", output)]
    result = run("segment", slide, *given, "--model", model, "--tile-size", 256)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "nuclei, 4 tiles" in line
    assert [check_file(path) for path in outputs[:3]] == [()] * 3

    again = tmp_path / "again.geojson"
    assert run("export", outputs[3], "-o", again).exit_code == 0
    assert again.read_bytes() == outputs[0].read_bytes()

    checked = run("check", *outputs[:3])
    assert checked.exit_code == 0
    assert checked.stdout.count(": good") == 3


def test_quiet_says_nothing_and_verbose_says_what_happens(slide: Path, model: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--tile-size", 448, "--overwrite")
    result = run("segment", slide, "-o", tmp_path / "out.geojson", "-q", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    result = run("segment", slide, "-o", tmp_path / "out.geojson", "-v", *options)
    assert "info: threads: " in result.stderr
    assert "420 x 500 px of 0.25 um" in result.stderr


def test_the_default_is_the_same_everywhere() -> None:
    assert DEFAULT_MODEL == DEFAULT
    assert find_model(DEFAULT).is_dir()


def test_glass_warns_and_gives_an_empty_valid_file(model: Path, tmp_path: Path) -> None:
    glass = write_slide(tmp_path / "glass.tif", np.full((600, 500, 3), 255, np.uint8))
    out = tmp_path / "out.geojson"
    result = run("segment", glass, "-o", out, "--model", model)
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "no tissue" in result.stderr
    assert json.loads(out.read_text()) == {"type": "FeatureCollection", "features": []}
    assert run("check", out).exit_code == 0


def test_plan_tells_what_a_run_would_do(slide: Path, model: Path) -> None:
    shown = run("plan", slide, "--model", model, "--tile-size", 128)
    assert shown.exit_code == 0, shown.stderr
    for part in ("420 x 500 px", "0.25 um/px", "level 0 of 1", "mm2", "16 of 128 px", "GB", "about"):
        assert part in shown.stdout
    facts = json.loads(run("plan", slide, "--model", model, "--json").stdout)
    assert (facts["width"], facts["height"], facts["tiles"]) == (420, 500, 1)
    assert facts["mpp"] == pytest.approx(0.25)
    assert 0 < facts["tissue_mm2"] <= 420 * 500 * 0.25**2 / 1e6 * 1.1


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    bad = tmp_path / "bad.geojson"
    feature: dict[str, object] = {"type": "Feature", "id": None, "geometry": None, "properties": {}}
    bad.write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 50}))
    result = run("check", bad)
    assert result.exit_code == 1
    assert "error" in result.stdout
    assert "more" in result.stdout
    assert run("check", "-q", bad).stdout == ""
    assert "QuPath opens" in refused(run("check", tmp_path / "bad.txt"))
    assert "cannot be read" in refused(run("check", tmp_path / "nothing.geojson"))


# Bad input: one line, status 2, nothing under the final name.


def text_named_svs(folder: Path) -> Path:
    path = folder / "text.svs"
    path.write_text("no slide at all\n" * 100)
    return path


def truncated(folder: Path) -> Path:
    whole = write_slide(folder / "whole.tif", discs((1500, 1300))[0])
    path = folder / "cut.svs"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    return path


def without_mpp(folder: Path) -> Path:
    return write_slide(folder / "bare.tif", discs((300, 300))[0], mpp=None)


def absurd_mpp(folder: Path) -> Path:
    return write_slide(folder / "absurd.tif", discs((300, 300))[0], mpp=264.6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nothing.svs", r"nothing.svs: no such file"),
        (text_named_svs, "no reader opens this (openslide: "),
        (truncated, "cut.svs: "),
        (without_mpp, "no pixel size in the metadata; give --slide-mpp (0.25"),
        (absurd_mpp, "give --slide-mpp (0.25"),
    ],
)
@pytest.mark.parametrize("command", ["segment", "plan"])
def test_slides_that_cannot_be_used(
    command: str, make: object, message: str, model: Path, tmp_path: Path
) -> None:
    source = make(tmp_path)  # type: ignore[operator]
    out = tmp_path / "out"
    out.mkdir()
    output = ("-o", out / "a.geojson") if command == "segment" else ()
    assert message in refused(run(command, source, "--model", model, *output))
    assert list(out.iterdir()) == []


def test_slide_mpp_helps_where_the_file_does_not_say(model: Path, tmp_path: Path) -> None:
    bare = without_mpp(tmp_path)
    assert run("plan", bare, "--model", model, "--slide-mpp", 0.25).exit_code == 0
    assert "not between 0.05 and 5" in refused(run("plan", bare, "--model", model, "--slide-mpp", 250))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/a.geojson", "does not exist"),
        ("/proc/a.geojson", "cannot be written"),
        ("file/a.geojson", "file"),
        ("a.shp", ".geojson"),
        ("a", ".geojson"),
        ("there.geojson", "--overwrite"),
    ],
)
def test_outputs_that_cannot_be_written(
    output: str, message: str, slide: Path, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there.geojson").write_text("mine")
    before = sorted(tmp_path.iterdir())
    assert message in refused(run("segment", slide, "--model", model, "-o", tmp_path / output))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.geojson").read_text() == "mine"


def test_checkpoints_that_are_not_ours(slide: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.geojson")
    weights = tmp_path / "weights.pt"
    torch.save({"state_dict": {}}, weights)
    assert "not a wsiseg model" in refused(run("segment", slide, "--model", weights, *out))
    assert "no such model" in refused(run("segment", slide, "--model", tmp_path / "none", *out))
    folder = tiny_model_with(tmp_path / "damaged", "spn.safetensors", b"not weights")
    assert "damaged" in refused(run("segment", slide, "--model", folder, *out))
    folder = tiny_model_with(tmp_path / "other", "model.json", b'{"format": "else"}')
    assert "other" in refused(run("segment", slide, "--model", folder, *out))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "other", "weights.pt"]


def tiny_model_with(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir()
    card = {
        "format": "wsiseg-model-1",
        "name": "x",
        "recipe": "spn_ien",
        "mpp": 0.25,
        "halo": 128,
        "settings": {"width": 0.125},
        "class_names": ["Nucleus"],
        "class_colors": [[1, 2, 3]],
        "files": {"spn": ["spn.safetensors", "0" * 64]},
        "about": {},
    }
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "spn.safetensors").write_bytes(b"")
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    ("device", "executor"),
    [("cuda", "threads"), ("cuda:7", "threads"), ("tpu", "threads"), ("cuda", "dask_local")],
)
def test_a_device_that_is_absent(
    device: str, executor: str, slide: Path, model: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out.geojson", "--executor", executor, "--workers", 1)
    assert f"device '{device}'" in refused(run("segment", slide, "--model", model, "--device", device, *out))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tile-size", 1000), "the nearest are 960 and 1024"),
        (("--executor", "slurm"), "choose one of dask_address, dask_local, dask_slurm, threads"),
        (("--measure", "shape,size"), "measure 'size' is unknown; choose from shape, stain, context"),
        (("--cells", 100), "cells_um 100 is not between 0.5 and 25"),
        (("--stains", "0.6,0.7"), "three for each of two stains"),
        (("--stains", "0.65,0.70,0.29,0.65,0.70,0.29"), "parallel"),
        (("--stains", "none.toml"), "none.toml: cannot be read"),
        (("--batch-size", "many"), "--batch-size many"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--threshold", "2"), "threshold 2"),
        (("--roi", "nothing.geojson"), "nothing.geojson"),
        (("--executor", "dask_address"), "address must be given"),
        (("--work-dir", "/nowhere"), "/nowhere"),
    ],
)
def test_options_outside_their_range(
    options: tuple[object, ...], message: str, slide: Path, model: Path, tmp_path: Path
) -> None:
    out = ("-o", tmp_path / "out.geojson")
    assert message in refused(run("segment", slide, "--model", model, *out, *options))
    assert list(tmp_path.iterdir()) == []


def test_regions_beside_the_slide_are_refused(slide: Path, model: Path, tmp_path: Path) -> None:
    far = tmp_path / "far.geojson"
    ring = [[90_000, 90_000], [90_100, 90_000], [90_100, 90_100], [90_000, 90_000]]
    far.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    out = ("-o", tmp_path / "out.geojson")
    said = refused(run("segment", slide, "--model", model, "--roi", far, *out))
    assert "far.geojson: no region meets the slide, " in said
    assert list(tmp_path.iterdir()) == [far]


def test_stores_that_are_none(tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out.geojson")
    assert "nothing.zarr" in refused(run("export", tmp_path / "nothing.zarr", *out))
    (tmp_path / "empty.zarr").mkdir()
    assert "empty.zarr" in refused(run("export", tmp_path / "empty.zarr", *out))
    assert [path.name for path in tmp_path.iterdir()] == ["empty.zarr"]


# As a process of its own.


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "wsiseg", *map(str, arguments)]


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_goes_on(
    slide: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.geojson"
    # With the smallest tiles this takes long enough to be interrupted.
    options = ("segment", slide, "-o", out, "--model", model, "--tile-size", 64, "--workers", 1)
    kept = tmp_path / ".out.geojson.wsiseg"
    process = subprocess.Popen(command(*options), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(kept.glob("0*.npz")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    (line,) = said.splitlines()
    assert line.startswith("interrupted; ")
    assert str(kept) in line
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == [".out.geojson.wsiseg"]
    done = len(list(kept.glob("0*.npz")))

    result = run(*options, "-v")
    assert result.exit_code == 0
    assert f"going on from {kept}: {done} of 17 tasks are finished" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.geojson"]
    assert run(*options[:2], "-o", tmp_path / "whole.geojson", *options[4:]).exit_code == 0
    assert out.read_bytes() == (tmp_path / "whole.geojson").read_bytes()


LIGHT = """
import sys
try:
    {code}
except SystemExit as end:
    assert not end.code
heavy = {{'torch', 'dask', 'distributed', 'zarr', 'openslide', 'shapely', 'numpy'}} - set('{allowed}'.split())
loaded = sorted(heavy & set(sys.modules))
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import wsiseg", ""),
        ("from wsiseg.cli.app import app; app(['--help'])", ""),
        ("from wsiseg.cli.app import app; app(['segment', '--help'])", ""),
        ("from wsiseg.cli.app import app; app(['--version'])", ""),
        (
            "from wsiseg.cli.app import app; app(['plan', {slide!r}, '--model', {model!r}])",
            "numpy openslide zarr shapely",
        ),
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(
    code: str, allowed: str, slide: Path, model: Path
) -> None:
    code = LIGHT.format(code=code.format(slide=str(slide), model=str(model)), allowed=allowed)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_teaches_by_examples() -> None:
    assert "wsiseg segment slide.svs -o slide.geojson" in run("--help").stdout
    for name in ("segment", "plan", "export", "check"):
        text = run(name, "--help").stdout
        assert "Example" in text
        assert f"wsiseg {name} slide" in text


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == __version__


def test_an_unknown_option_is_a_usage_error() -> None:
    assert run("segment", "a.svs", "-o", "b.geojson", "--no-such").exit_code == 2
    assert run("segment", "a.svs").exit_code == 2


# What is drawn while it runs.


class Terminal(io.StringIO):
    """Something that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_one_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with bar(quiet=False) as show:
        assert show is not None
        show(Progress("segmenting", 3, 8, 1234, 2.5))
    for part in ("segmenting", "3/8", "2.5/s", "1,234 nuclei"):
        assert part in screen.getvalue()


def test_no_bar_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with bar(quiet=False) as show:
        assert show is None
    monkeypatch.setattr("sys.stderr", Terminal())
    with bar(quiet=True) as show:
        assert show is None


def test_what_is_said_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("two\nlines")
    assert capsys.readouterr().err == "two lines\n"

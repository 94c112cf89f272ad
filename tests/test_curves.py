import pytest
from PIL import Image

from wsiseg.curves import draw_curves
from wsiseg.errors import DataError


def test_every_stage_has_its_panel(tmp_path):
    (tmp_path / "spn.csv").write_text("step,loss\n49,0.5\n99,0.3\n")
    one = Image.open(draw_curves(tmp_path)).size
    (tmp_path / "ien.csv").write_text("step,loss,point F1,AJI (authors)\n49,2.0,,\n60,,0.5,0.4\n99,1.0,,\n")
    two = Image.open(draw_curves(tmp_path)).size
    assert two[0] == 2 * one[0]
    assert two[1] == one[1]


def test_what_is_no_learning_curve_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no learning curve"):
        draw_curves(tmp_path)
    (tmp_path / "spn.csv").write_text("step,loss\n1,high\n")
    with pytest.raises(DataError, match=r"spn\.csv: is no learning curve"):
        draw_curves(tmp_path)

import numpy as np
import pytest

from wsiseg import compiled
from wsiseg.label_sums import label_sums


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("available", [True, False])
def test_sums_are_those_of_each_labels_pixels(monkeypatch, kind, available):
    monkeypatch.setattr(compiled, "AVAILABLE", available and compiled.AVAILABLE)
    rng = np.random.default_rng(0)
    values = rng.normal(0, 100, (3, 40, 30)).astype(kind)
    labels = rng.integers(0, 6, (40, 30)).astype(np.int32)
    sums, sizes = label_sums(values, labels, 7)
    wanted = [values[:, labels == n].sum(axis=1, dtype=float) for n in range(1, 8)]
    np.testing.assert_allclose(sums, wanted, rtol=1e-9)
    assert sizes.tolist() == [(labels == n).sum() for n in range(1, 8)]

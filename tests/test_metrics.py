import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from wsiseg import metrics

TRUTH = np.array([[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 3, 3]])
PRED = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 0, 0, 0, 0]])
LABELS = hnp.arrays(np.int8, (6, 7), elements=st.integers(0, 4))


def masks(labels):
    return [labels == i for i in np.unique(labels) if i]


def slow_aji(truth, pred, *, authors):
    """Loops over masks, straight from the definitions."""
    if authors:
        truth, pred = (renumber_pieces(labels) for labels in (truth, pred))
    t, p = masks(truth), masks(pred)
    if authors and not p:
        return 0.0 if t else 1.0
    inter = union = 0
    used = set()
    for mask in t:
        jaccards = [(mask & other).sum() / (mask | other).sum() for other in p]
        if jaccards and max(jaccards) > 0:
            j = int(np.argmax(jaccards))
            inter += (mask & p[j]).sum()
            union += (mask | p[j]).sum()
            used.add(j)
        elif authors:
            union += mask.sum() + p[0].sum()
            used.add(0)
        else:
            union += mask.sum()
    union += sum(other.sum() for j, other in enumerate(p) if j not in used)
    return inter / union if union else 1.0


def renumber_pieces(labels):
    """8-connected pieces in reading order of their first pixel."""
    out, starts = np.zeros(labels.shape, int), []
    for mask in masks(labels):
        pieces, n = ndimage.label(mask, np.ones((3, 3)))
        starts += [(np.flatnonzero(pieces == i)[0], pieces == i) for i in range(1, n + 1)]
    for number, (_, mask) in enumerate(sorted(starts, key=lambda s: s[0]), start=1):
        out[mask] = number
    return out


def slow_pq(truth, pred):
    t, p = masks(truth), masks(pred)
    ious = [(a & b).sum() / (a | b).sum() for a in t for b in p]
    hits = [v for v in ious if v > 0.5]
    if not t and not p:
        return 1.0
    return sum(hits) / (len(hits) + 0.5 * (len(p) - len(hits)) + 0.5 * (len(t) - len(hits)))


def slow_object_dice(truth, pred):
    t, p = masks(truth), masks(pred)
    if not t or not p:
        return float(len(t) == len(p))

    def one_way(a, b):
        total = sum(m.sum() for m in a)
        score = 0.0
        for m in a:
            common = [((m & o).sum(), 2 * (m & o).sum() / (m.sum() + o.sum())) for o in b]
            best = max(common)
            score += m.sum() / total * (best[1] if best[0] else 0)
        return score

    return (one_way(t, p) + one_way(p, t)) / 2


def test_hand_counted_aji():
    assert metrics.aji(TRUTH, PRED) == 6 / 12
    assert metrics.aji_authors(TRUTH, PRED) == 6 / 18


def test_hand_counted_others():
    assert metrics.pixel_iou(TRUTH, PRED) == 8 / 10
    assert metrics.pixel_f1(TRUTH, PRED) == 16 / 18
    found = metrics.match(TRUTH, PRED)
    assert (found.tp, found.fp, found.fn) == (1, 1, 2)  # IoU 4/6; the other pair has exactly a half
    assert metrics.panoptic_quality(TRUTH, PRED) == pytest.approx((4 / 6) / 2.5)


@given(LABELS, LABELS)
def test_fast_is_slow(truth, pred):
    assert metrics.aji(truth, pred) == pytest.approx(slow_aji(truth, pred, authors=False))
    assert metrics.aji_authors(truth, pred) == pytest.approx(slow_aji(truth, pred, authors=True))
    assert metrics.panoptic_quality(truth, pred) == pytest.approx(slow_pq(truth, pred))
    assert metrics.object_dice(truth, pred) == pytest.approx(slow_object_dice(truth, pred))


@given(LABELS, LABELS, st.permutations(range(1, 5)))
def test_numbers_of_labels_do_not_count(truth, pred, order):
    other = np.array([0, *order])[pred]
    for name in ("aji", "object_dice", "panoptic_quality", "pixel_iou"):
        metric = getattr(metrics, name)
        assert metric(truth, other) == pytest.approx(metric(truth, pred))


@given(LABELS)
def test_a_perfect_prediction_is_perfect(truth):
    for name in ("aji", "aji_authors", "object_dice", "panoptic_quality", "pixel_iou", "pixel_f1"):
        assert getattr(metrics, name)(truth, truth) == 1


def test_errors():
    with pytest.raises(ValueError, match="must be alike"):
        metrics.aji(TRUTH, PRED[:, 1:])
    with pytest.raises(ValueError, match="ambiguous"):
        metrics.match(TRUTH, PRED, iou=0.3)

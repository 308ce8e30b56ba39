"""Slab by slab must say what the naive way says: all scores, then resample, then decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, ModelError
from oncontour.ops.windows import cut, profile, shares, starts, stitch_labels, tiles

MIXING = np.random.default_rng(7).normal(size=(9, 3)).astype(np.float32)


def a_net(n_classes, dims=3):
    """Scores that differ from window to window at the same voxel, as a real net's do: they depend on the place in the window."""

    def predict(images):
        axes = tuple(range(2, 2 + dims))
        place = np.indices(images.shape[2:]).sum(axis=0) / 9
        first = images[:, :1]
        features = np.concatenate([first, np.sin(3 * first + place), first.mean(axis=axes, keepdims=True) + 0 * first], axis=1)
        return (3 * np.einsum("kf,nf...->nk...", MIXING[:n_classes], features)).astype(np.float32)

    return predict


def naive_scores(predict, image, n_classes, window, overlap, blend):
    """(classes, k, j, i) in float64, everything held at once."""
    total, weight = np.zeros((n_classes, *image.shape)), np.zeros(image.shape)
    share = np.einsum("k,j,i->kji", *[profile(blend, n) for n in window])
    for box in tiles(image.shape, window, overlap):
        scores = predict(cut(image[None], box)[None])[0]
        part = tuple(slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(box, image.shape, strict=True))
        inner = tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(part, box, strict=True))
        total[(slice(None), *part)] += scores[(slice(None), *inner)] * share[inner]
        weight[part] += share[inner]
    return total / weight


def naive_labels(scores, source, target, mode, threshold=0.5):
    """Labels on the target, and where the decision is so close that rounding may turn it."""
    if mode == "softmax":
        scores = np.exp(scores - scores.max(axis=0))
        scores /= scores.sum(axis=0)
    elif mode == "sigmoid":
        scores = 1 / (1 + np.exp(-scores))
    scores = Volume(scores.astype(np.float32), source).to(target, blur=not mode.endswith("logits")).array
    if mode.startswith("sigmoid"):
        threshold = threshold if mode == "sigmoid" else np.log(threshold / (1 - threshold))
        inside = Volume(np.ones(source.shape, np.float32), source).to(target).array > 0
        counted = np.where((scores >= threshold) & inside, scores, -np.inf)
        labels = np.where(counted.max(axis=0) > -np.inf, counted.argmax(axis=0) + 1, 0)
        close = np.abs(scores - threshold).min(axis=0) < 1e-5
    else:
        labels, close = scores.argmax(axis=0), np.zeros(target.shape, bool)
    ranked = np.sort(scores, axis=0)
    return labels, (close | (ranked[-1] - ranked[-2] < 1e-5)) & scores.any(axis=0)  # beyond the source all are 0: background


def same_but_for_ties(labels, expected, ties):
    return bool((labels == expected)[~ties].all()) and ties.mean() < 0.01


SOURCE = Geometry.regular((17, 23, 19), (3.0, 2.0, 2.0), (-10.0, 5.0, 40.0))
OBLIQUE = np.array([[0.1, -0.2, 1.0], [0.2, 0.96, 0.172], [0.9944, -0.1828, -0.136]])
OBLIQUE = np.linalg.svd(OBLIQUE)[0] @ np.linalg.svd(OBLIQUE)[2]
TARGETS = {
    "same": SOURCE,
    "cropped": SOURCE.crop((2, -3, 4), (15, 20, 22)),
    "flipped and permuted": SOURCE.reorient([(1, 0, 0), (0, 0, -1), (0, -1, 0)]),
    "finer": SOURCE.resample((1.3, 1.1, 0.9)),
    "finer, from the feet": SOURCE.resample((1.3, 1.1, 0.9)).reorient([(0, 0, -1), (1, 0, 0), (0, 1, 0)]),
    "coarser": SOURCE.resample((5.0, 5.1, 4.4)),
    "coarser in plane, finer along": SOURCE.resample((1.0, 3.0, 3.0)).pad((3, 0, 0), (0, 2, 2)),
    "oblique": Geometry.regular((20, 24, 22), (2.2, 1.9, 1.7), SOURCE.points((1, 1, 1)), OBLIQUE),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("mode", ["softmax", "softmax_logits", "sigmoid", "sigmoid_logits"])
def test_blended_is_the_naive_answer(name, mode):
    image = np.random.default_rng(3).normal(size=SOURCE.shape)
    window, overlap, target = (6, 8, 10), 0.4, TARGETS[name]
    got = stitch_labels(a_net(5), Volume(image, SOURCE), 5, window=window, overlap=overlap, target=target, mode=mode, blend="gaussian")
    scores = naive_scores(a_net(5), image, 5, window, overlap, "gaussian")
    expected, ties = naive_labels(scores, SOURCE, target, mode)
    assert got.labels.geometry == target
    assert got.labels.array.dtype == np.uint8
    assert len(np.unique(expected)) > 3
    assert same_but_for_ties(got.labels.array, expected, ties)


def bits(planes, n):
    return (planes[n // 8] >> (n % 8)) & 1 == 1


@pytest.mark.parametrize("name", ["same", "cropped", "finer, from the feet", "coarser", "oblique"])
@pytest.mark.parametrize(("mode", "blend"), [("sigmoid", "gaussian"), ("sigmoid_logits", "gaussian"), ("sigmoid", "core")])
def test_shared_voxels_stay_with_everyone_who_claims_them(name, mode, blend):
    """Nine structures (two planes of bits), each where it alone reaches its own threshold, whatever the others say there."""
    image, levels = np.random.default_rng(3).normal(size=SOURCE.shape), np.linspace(0.2, 0.8, 9)

    def predict(images):  # says the same whatever the window, so that every blend must give the whole-volume answer
        return np.einsum("kc,nc...->nk...", MIXING[:, :1] * 4, images) + MIXING[:, 1].reshape(1, 9, 1, 1, 1)

    options = {"window": (11, 15, 19), "target": TARGETS[name], "mode": mode, "blend": blend, "threshold": levels, "shared": True}
    got = stitch_labels(predict, Volume(image, SOURCE), 9, **options)
    scores = predict(image[None, None])[0].astype(np.float64)
    scores = scores if mode == "sigmoid_logits" else 1 / (1 + np.exp(-scores))
    scores = Volume(scores.astype(np.float32), SOURCE).to(TARGETS[name], blur=mode == "sigmoid").array
    there = Volume(np.ones(SOURCE.shape, np.float32), SOURCE).to(TARGETS[name]).array > 0
    levels = np.log(levels / (1 - levels)) if mode == "sigmoid_logits" else levels
    masks = got.masks([f"s{n}" for n in range(9)])
    assert (got.labels.array.dtype, got.labels.array.shape) == (np.uint8, (2, *TARGETS[name].shape))
    assert sum(mask.array.astype(int) for mask in masks.values()).max() > 3
    for n, level in enumerate(levels):
        close = (np.abs(scores[n] - level) < 1e-5) & there
        assert close.mean() < 0.01
        assert (masks[f"s{n}"].array == ((scores[n] >= level) & there))[~close].all()
        assert (masks[f"s{n}"].array == bits(got.labels.array, n)).all()


def test_a_target_volume_keeps_the_tumour_within_it():
    """Discs of radius 4 and 8 pixels in 16 slices, voxels of 12 mm3; the net is surer of the inner one."""
    grid = Geometry.regular((16, 32, 32), (3.0, 2.0, 2.0))
    _, j, i = np.indices(grid.shape)
    far = np.hypot(j - 16, i - 16)
    scores = np.stack([np.where(far < 4.5, 4.0, -8.0), np.where(far < 8.5, 3.0, -8.0)]).astype(np.float32)
    whole = [int((np.hypot(*np.mgrid[-16:16, -16:16]) < r).sum()) * 16 for r in (4.5, 8.5)]
    volumes = {}
    for shared in (False, True):
        image = Volume(np.zeros(grid.shape, np.float32), grid)
        got = stitch_labels(lambda images: scores[None], image, 2, window=grid.shape, mode="sigmoid", shared=shared)
        masks = got.masks(["GTV", "PTV"])
        volumes[shared] = [int(masks[name].array.sum()) for name in ("GTV", "PTV")]
    assert volumes == {False: [whole[0], whole[1] - whole[0]], True: whole}
    assert whole == [69 * 16, 225 * 16]


def test_logits_are_taken_where_the_coarser_voxels_lie():
    """A ball of 4 mm and 268 mm3, logits of 10 in it and -30 around it: blurred, nothing would be left of it in slices of 5 mm."""
    source = Geometry.regular((40, 32, 32), (1.5, 1.5, 1.5), (-23.25, -23.25, -29.25))
    far = np.linalg.norm(source.points(np.stack(np.indices(source.shape), -1)), axis=-1)
    scores = np.stack([np.zeros(source.shape), np.clip((4 - far) * 5, -30, 10)]).astype(np.float32)
    image, volumes = Volume(np.zeros(source.shape, np.float32), source), []
    for shift in np.linspace(-2.5, 2.5, 6)[:-1]:
        target = Geometry.regular((9, 15, 15), (5.0, 3.0, 3.0), (-21.0, -21.0, -20.0 + shift))
        got = stitch_labels(lambda images: scores[None], image, 2, window=source.shape, target=target, mode="softmax_logits")
        volumes.append(int(got.labels.array.sum()) * 45)
    assert np.mean(volumes) == pytest.approx(268, rel=0.2)
    assert min(volumes) > 0


def test_an_answer_that_is_no_number_is_not_background():
    grid = Geometry.regular((4, 8, 8))
    hole = np.zeros(grid.shape, np.float32)
    hole[1, 2, 3:5] = np.nan
    for image, why in ((hole, "2 voxels of its input are NaN"), (np.zeros(grid.shape, np.float32), "weights may be damaged")):
        with pytest.raises(ModelError, match=rf"not a number.*{why}"):
            stitch_labels(lambda images: np.full((1, 2, 4, 8, 8), np.nan, np.float32), Volume(image, grid), 2, window=(4, 8, 8))


def test_only_separate_structures_can_share_and_nobody_wins_then():
    image = Volume(np.zeros((4, 4, 4), np.float32), Geometry.regular((4, 4, 4)))
    for wrong in ({"mode": "softmax"}, {"mode": "sigmoid", "confidence": True}):
        with pytest.raises(ConfigError, match="shared"):
            stitch_labels(a_net(2), image, 2, window=(4, 4, 4), shared=True, **wrong)


@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    window=st.tuples(*[st.integers(1, 9)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    spacing=st.tuples(*[st.floats(0.6, 3.0)] * 3),
    blend=st.sampled_from(["gaussian", "hann", "flat"]),
    batch=st.integers(1, 4),
)
def test_any_size_any_window(shape, window, overlap, spacing, blend, batch):
    source = Geometry.regular(shape, (1.0, 1.5, 2.0))
    target = source.resample(spacing)
    image = np.random.default_rng(0).normal(size=shape)
    got = stitch_labels(a_net(4), Volume(image, source), 4, window=window, overlap=overlap, target=target, blend=blend, batch=batch).labels
    scores = naive_scores(a_net(4), image, 4, window, overlap, blend)
    expected, ties = naive_labels(scores, source, target, "softmax")
    assert same_but_for_ties(got.array, expected, ties)


@pytest.mark.parametrize("name", ["same", "finer", "finer, from the feet", "coarser in plane, finer along", "oblique"])
@pytest.mark.parametrize("mode", ["softmax", "sigmoid"])
def test_cores_give_every_voxel_once(name, mode):
    """A net without surroundings says the same in every window: then cores must give the whole-volume answer, seams included."""
    image = np.random.default_rng(3).normal(size=SOURCE.shape)

    def predict(images):
        return np.einsum("kc,nc...->nk...", MIXING[:5, :1] * 4, images) + MIXING[:5, 1].reshape(1, 5, 1, 1, 1)

    got = stitch_labels(predict, Volume(image, SOURCE), 5, window=(11, 15, 19), target=TARGETS[name], mode=mode, blend="core")
    expected, ties = naive_labels(predict(image[None, None])[0].astype(np.float64), SOURCE, TARGETS[name], mode)
    assert same_but_for_ties(got.labels.array, expected, ties)
    assert got.blend == "core"


def test_a_core_is_the_middle_of_its_window():
    """Windows of 4 every 2 along k: voxel k comes from the window whose middle is nearest."""

    def whose(images):  # class 1 in the two middle slices of each window, class 0 at its ends
        scores = np.zeros((len(images), 2, 4, 2, 2), np.float32)
        scores[:, 1, 1:3] = 1
        return scores

    image = Volume(np.zeros((10, 2, 2)), Geometry.regular((10, 2, 2)))
    labels = stitch_labels(whose, image, 2, window=(4, 2, 2), overlap=0.5, blend="core").labels.array
    assert labels[:, 0, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_slices_with_their_neighbours():
    """2.5D: the net sees c * (2 * context + 1) channels, ends repeated; slice by slice equals the stack."""
    image = np.arange(5.0)[:, None, None] + np.zeros((5, 6, 6))
    seen = []

    def predict(images):
        seen.extend(images[:, :, 3, 3].tolist())
        return np.stack([images[:, 1], np.full_like(images[:, 1], 1.5)], axis=1)

    stitched = stitch_labels(predict, Volume(image, Geometry.regular((5, 6, 6))), 2, window=(1, 8, 8), dims=2, context=1, batch=2)
    assert seen == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 4]]
    assert stitched.labels.array[:, 2, 2].tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("context", [0, 2])
def test_slices_on_a_finer_grid_equal_the_naive_answer(context):
    image = np.random.default_rng(3).normal(size=SOURCE.shape)
    target = TARGETS["finer"]
    got = stitch_labels(
        a_net(4, 2),
        Volume(image, SOURCE),
        4,
        window=(1, 24, 24),
        target=target,
        dims=2,
        context=context,
        batch=3,
        pad=0.0,
    )
    padded = np.pad(image, ((context, context), (0, 1), (2, 3)))
    stacks = np.stack([padded[k : k + 2 * context + 1] for k in range(SOURCE.shape[0])])
    scores = a_net(4, 2)(stacks)[:, :, :23, 2:21].swapaxes(0, 1).astype(np.float64)
    expected, ties = naive_labels(scores, SOURCE, target, "softmax")
    assert same_but_for_ties(got.labels.array, expected, ties)


def test_how_sure_and_the_peak_of_each_class():
    scores = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])).T.reshape(3, 2, 1, 1)
    image, predict = Volume(np.zeros((2, 1, 1)), Geometry.regular((2, 1, 1))), lambda _: scores[None].astype(np.float32)
    got = stitch_labels(predict, image, 3, window=(2, 1, 1), confidence=True, target=image.geometry.pad((0, 0, 1), (0, 0, 0)))
    assert got.labels.array[:, 0].tolist() == [[0, 0], [0, 2]]
    assert got.confidence is not None
    assert got.peak is not None
    assert got.confidence.array[:, 0, 1].tolist() == pytest.approx([0.7, 0.6], abs=1e-3)
    assert got.confidence.array[:, 0, 0].tolist() == [0, 0], "nothing is known beyond the image"
    assert got.peak.tolist() == pytest.approx([0.7, 0.3, 0.6], abs=1e-6)


def test_the_chances_of_all_classes_are_kept_on_the_image_s_own_grid():
    shape, window = (13, 20, 18), (6, 12, 10)
    image = Volume(np.random.default_rng(3).normal(size=shape).astype(np.float32), Geometry.regular(shape, (3, 2, 2)))
    found = stitch_labels(
        a_net(3), image, 3, window=window, target=image.geometry.resample((2, 1, 1)), mode="sigmoid", blend="gaussian", chances=True
    )
    naive = 255 / (1 + np.exp(-naive_scores(a_net(3), image.array, 3, window, 0.5, "gaussian")))
    assert found.chances.geometry == image.geometry
    assert found.chances.array.dtype == np.uint8
    assert np.abs(found.chances.array - naive).max() <= 0.501
    assert stitch_labels(a_net(3), image, 3, window=window, mode="sigmoid", blend="core", chances=True).chances is None
    assert stitch_labels(a_net(3), image, 3, window=window, mode="sigmoid").chances is None


def test_overlapping_structures_and_thresholds():
    probability = np.array([[0.6, 0.9, 0.2], [0.55, 0.95, 0.3]])
    scores = np.log(probability / (1 - probability)).astype(np.float32).reshape(1, 2, 3, 1, 1)
    image = Volume(np.zeros((3, 1, 1)), Geometry.regular((3, 1, 1)))
    run = {"window": (3, 1, 1), "mode": "sigmoid"}
    assert stitch_labels(lambda _: scores, image, 2, **run).labels.array.ravel().tolist() == [1, 2, 0]
    assert stitch_labels(lambda _: scores, image, 2, **run, threshold=(0.7, 0.25)).labels.array.ravel().tolist() == [2, 2, 2]


def test_beyond_the_image_is_background():
    grid = Geometry.regular((4, 4, 4))
    ones = lambda x: np.stack([np.zeros_like(x[:, 0]), np.ones_like(x[:, 0])], axis=1)  # noqa: E731
    labels = stitch_labels(ones, Volume(np.zeros((4, 4, 4)), grid), 2, window=(2, 2, 2), target=grid.pad((1, 2, 0), (0, 1, 3))).labels
    assert labels.array.sum() == 64
    assert labels.array[1:, 2:6, :4].all()


def test_many_classes_take_sixteen_bits_and_cores():
    image = Volume(np.arange(64.0).reshape(4, 4, 4), Geometry.regular((4, 4, 4)))

    def predict(x):
        return -np.abs(x - np.arange(300, dtype=np.float32).reshape(1, -1, 1, 1, 1) / 3)

    got = stitch_labels(predict, image, 300, window=(2, 2, 2), memory_mb=0.01)
    assert got.blend == "core"
    assert got.labels.array.dtype == np.uint16
    assert np.array_equal(got.labels.array.ravel(), np.arange(64) * 3)


def test_progress_and_order():
    seen = []
    image = Volume(np.zeros((4, 4, 4)), Geometry.regular((4, 4, 4)))
    stitch_labels(lambda x: np.zeros((len(x), 2, 2, 4, 4)), image, 2, window=(2, 4, 4), overlap=0, progress=lambda *a: seen.append(a))
    assert seen == [(1, 2), (2, 2)]


def test_tiles_cover_evenly_and_weights_add_up():
    assert starts(100, 40, 0.5) == (0, 20, 40, 60)
    assert starts(101, 40, 0.5) == (0, 15, 30, 46, 61)
    assert starts(3, 8, 0.5) == (-2,)
    for blend in ("gaussian", "hann", "flat"):
        total = np.zeros(101)
        for a, part in zip(starts(101, 40, 0.5), shares(blend, 101, 40, starts(101, 40, 0.5)), strict=True):
            total[a : a + 40] += part
        assert total == pytest.approx(np.ones(101))


def test_what_cannot_be_is_said():
    image = Volume(np.zeros((4, 4, 4)), Geometry.regular((4, 4, 4)))
    with pytest.raises(ModelError, match=r"\(1, 3, 2, 2, 2\), expected \(1, 2, 2, 2, 2\)"):
        stitch_labels(lambda x: np.zeros((1, 3, 2, 2, 2)), image, 2, window=(2, 2, 2))
    for settings_ in ({"overlap": 1.0}, {"mode": "argmax"}, {"blend": "best"}, {"dims": 2}, {"threshold": (0.1, 0.2, 0.3)}):
        with pytest.raises(ConfigError):
            stitch_labels(lambda x: np.zeros((1, 2, 2, 2, 2)), image, 2, **{"window": (2, 2, 2), **settings_})

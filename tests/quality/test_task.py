"""Contour quality: what is learned from, what is told of a case, and what is refused in words instead of scored."""

from dataclasses import replace
from math import nan
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oncontour.core.assessment import Calibration
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.prediction import Candidate
from oncontour.core.volume import Volume
from oncontour.errors import ConfigError, InputError, ModelError, TrainingError
from oncontour.learn.fit import fit
from oncontour.learn.task import save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.overlap import overlap
from oncontour.ops.augment import Move, Ranges
from oncontour.phantom import head_neck, pelvis
from oncontour.quality import calibrate as calibrating
from oncontour.quality.calibrate import (
    DETECTOR_PATIENTS,
    _detector_anew,
    after_training,
    offsets,
    recalibrated,
)
from oncontour.quality.candidates import Packed, Rows, candidate_contours, errors_of, rows_of
from oncontour.quality.inputs import GIVEN, AssessSettings, calibration_of, calibration_words
from oncontour.quality.observe import Observed, Scored, check_scored, observe
from oncontour.quality.out_of_distribution import Detector, distance, fitted
from oncontour.quality.predict import Assessor, error_map, load_assessor
from oncontour.quality.simulated_errors import SimulatedError, Surroundings, shifted, spoil
from oncontour.quality.slice_scores import Measured, past_the_ends, quality
from oncontour.quality.task import AssessTask, Table

NAMES = ("Bone_Mandible", "Parotid_L", "Parotid_R")
SETTINGS = AssessSettings(
    NAMES,
    net_options={"width": 32, "depth": 1, "dropout": 0.0, "stem": (8, 16, 24)},
    spacing_mm=(6, 5, 5),
    window=(32, 32),
    variants=9,
    draws=384,
    coverage=0.7,
)
GRID = ((6, 5, 5), 1.0, (32, 48, 48))


@pytest.fixture(scope="module")
def cases():
    """Four to learn from and three that the bound is made of: the fewest that 70 % can be promised with."""
    return [head_neck(seed, *GRID) for seed in range(7)]


@pytest.fixture(scope="module")
def model(cases, tmp_path_factory):
    training = TrainSettings(epochs=5, batch=16, learning_rate=6e-3, validation=0.45, threads=1)
    out = tmp_path_factory.mktemp("quality")
    return fit(AssessTask(SETTINGS), cases, out, training, name="quality", region="head and neck", finish=after_training).model


@pytest.fixture(scope="module")
def assessor(model):
    return load_assessor(model, backend="torch", threads=1)


@pytest.fixture(scope="module")
def stranger():
    return head_neck(50, *GRID)


def spoiled(case, family="shift", strengths=(0.1, 0.4, 0.9)):
    """Three copies of every structure, more and more wrong."""
    return {
        f"{family} {s}": {
            n: case.mask(n).map(lambda m, s=s: spoil(m, Surroundings((6, 5, 5)), SimulatedError(family, s, 3))) for n in NAMES
        }
        for s in strengths
    }


# ---- what is learned from


def test_masks_are_packed_without_loss():
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 12, 14), bool)
    mask[1:4, 3:9, 5:11] = rng.random((3, 6, 6)) < 0.5
    packed = Packed.of(mask)
    assert (packed.window(range(-1, 7), (0, 0), (12, 14))[1:7] == mask).all()
    assert (packed.window([2], (-3, 7), (9, 20))[0, 3:, :7] == mask[2, :6, 7:]).all()
    assert not Packed.of(np.zeros((2, 2, 2), bool)).window([0], (0, 0), (2, 2)).any()


def test_rows_are_slices_gaps_and_what_lies_past_the_ends():
    mask = np.zeros((12, 8, 8), bool)
    mask[4, 2:5, 3:6], mask[6, 4:7, 3:6] = True, True
    rows = rows_of(mask, 3.0, 2)
    assert rows.k.tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert rows.contoured.tolist() == [False, False, True, False, True, False, False]
    assert rows.below_mm.tolist() == [-6, -3, 0, 3, 6, 9, 12]
    assert rows.above_mm.tolist() == [12, 9, 6, 3, 0, -3, -6]
    assert rows.centre[[0, 2, 4]].tolist() == [[3, 4], [3, 4], [5, 4]]
    assert not len(rows_of(np.zeros((3, 4, 4), bool), 3.0, 2).k)


def test_labels_are_the_true_slice_dsc(cases):
    case = cases[0]
    task = AssessTask(replace(SETTINGS, variants=4))
    drawn = {"seg": {"Parotid_L": case.mask("Parotid_L").map(lambda m: shifted(m, (6, 0, 5), (6, 5, 5)))}}
    claims = task.samples(replace(case, candidates={source: Candidate(masks) for source, masks in drawn.items()}))
    mine = next(c for c in claims if c.source == "seg")
    each = overlap(case.mask("Parotid_L"), drawn["seg"]["Parotid_L"]).slice_dsc
    assert mine.dsc == pytest.approx(each[mine.rows.k], nan_ok=True)
    assert [c.family for c in claims].count("segmenter") == 1
    whole = [c for c in claims if c.source == "truth"]
    assert all((c.dsc[c.rows.contoured] == 1).all() for c in whole)
    assert {c.structure for c in whole} == {0, 1, 2}


def test_held_out_families_are_never_made(cases):
    s = replace(SETTINGS, held_out_families=("leak", "shift"), variants=12)
    made = {c.family for c in AssessTask(s).samples(cases[0])}
    assert not made & {"leak", "shift"}
    assert len(made) == 8
    assert errors_of("a", "x", 4, ["shift"], 0) == errors_of("a", "x", 4, ["shift"], 0) != errors_of("b", "x", 4, ["shift"], 0)


def test_an_epoch_has_an_even_histogram_where_asked_for(cases):
    task = AssessTask(SETTINGS)
    table = Table.of([c for case in cases[:3] for c in task.samples(case)])
    rng = np.random.default_rng(0)
    even, natural = (np.histogram(table.dsc[table.choose(4000, rng, flat=f, generated=1)], 10, (0, 1))[0] for f in (1.0, 0.0))
    assert even.max() < 1.3 * even.min()
    assert natural.max() > 2 * natural.min()
    assert np.isnan(table.dsc[table.choose(800, rng, flat=1.0, generated=1)]).sum() == 100


@pytest.mark.parametrize(("flip", "called"), [(False, 1.0), (True, 2.0)])
def test_a_mirrored_draw_is_called_by_the_other_side_and_a_plain_one_by_its_own(cases, monkeypatch, flip, called):
    task = AssessTask(SETTINGS)
    claims = [c for c in task.samples(cases[0]) if c.structure == 1]
    draws = task.plan(claims, np.random.default_rng(0), train=True)[:40]
    assert task.settings.augment.flip_left_right
    monkeypatch.setattr(Ranges, "draw", lambda *_, **__: Move(flip_left_right=flip))
    assert {float(task.item(claims, d)["image"][-1, 0, 0]) for d in draws} == {called}


@pytest.mark.parametrize(("inputs", "silent"), [("mask", slice(0, 3)), ("ct", slice(3, 6))])
def test_an_input_can_be_taken_away(cases, inputs, silent):
    task = AssessTask(replace(SETTINGS, inputs=inputs))
    claims = task.samples(cases[0])
    image = task.item(claims, task.plan(claims, np.random.default_rng(0), train=False)[0])["image"]
    assert not image[silent].any()
    assert image[:6].any()


@pytest.mark.parametrize("heads", [("dsc",), ("dsc", "errors"), ("dsc", "class", "surface", "present")])
def test_heads_by_configuration(cases, heads):
    task = AssessTask(replace(SETTINGS, heads=heads, variants=2))
    claims = task.samples(cases[0])
    batch = torch.utils.data.default_collate([task.item(claims, d) for d in task.plan(claims, np.random.default_rng(0), train=True)[:4]])
    loss, figures = task.loss(batch)
    loss.backward()
    assert set(figures) == {*heads, "mae"}
    assert all(p.grad is not None for p in task.net.parameters())
    seen = Assessor(task.eval(), "torch").predict(cases[0].without_structures().with_masks({n: cases[0].mask(n) for n in NAMES}))
    assert bool(seen.assessment.error_maps) == ("errors" in heads)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"held_out_families": ("leaks",)}, "'leaks'"),
        ({"weights": {"dcs": 1.0}}, "'dcs'"),
        ({"draws": 0}, "draws"),
        ({"beyond": -1}, "beyond"),
    ],
)
def test_a_setting_that_would_do_nothing_or_harm_is_refused(wrong, told):
    with pytest.raises(ConfigError, match=told):
        replace(SETTINGS, **wrong)


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"heads": ("class",)}, {"window": (30, 32)}, {"hu": (5, 5)}, {"flat": 2.0}, {"net": "unet", "net_options": {}}):
        with pytest.raises((ConfigError, ModelError)):
            AssessTask(replace(SETTINGS, **wrong))


# ---- what is told


def test_every_head_can_learn_one_batch_by_heart(stranger):
    """The gradient of each loss reaches its head: 60 steps on one batch bring each down to half, the error map's to four fifths."""
    torch.manual_seed(0)
    task = AssessTask(SETTINGS).train()
    samples = task.samples(stranger)
    draws = task.plan(samples, np.random.default_rng(0), train=False)[:24]
    batch = torch.utils.data.default_collate([task.item(samples, draw) for draw in draws])
    adam = torch.optim.Adam(task.net.parameters(), lr=6e-3)
    figures = []
    for _ in range(60):
        adam.zero_grad()
        loss, figure = task.loss(batch)
        loss.backward()
        adam.step()
        figures.append(figure)
    still = {name: figures[-1][name] / figures[0][name] for name in figures[0]}
    assert {name for name, part in still.items() if part > (0.8 if name == "errors" else 0.5)} == set(), still


def test_a_minute_of_learning_tells_a_stranger_what_is_there_and_where_it_is_wrong(assessor, stranger):
    """What it takes to be good is not a test's time; that it goes the right way on a patient it never saw is."""
    torch.manual_seed(0)
    fresh = AssessTask(SETTINGS).eval()
    claims = fresh.samples(stranger)
    draws = fresh.plan(claims, np.random.default_rng(0), train=False)
    batch = torch.utils.data.default_collate([fresh.item(claims, draw) for draw in draws])
    with torch.no_grad():
        before, after = fresh.loss(batch)[1], assessor.task.loss(batch)[1]
    assert after["errors"] < 0.8 * before["errors"]
    assert after["present"] < 0.7 * before["present"]
    assert after["surface"] < before["surface"]


def test_a_perfect_error_map_adds_up_to_the_true_dsc(stranger):
    from oncontour.nets.quality import sums

    task = AssessTask(SETTINGS)
    claims = task.samples(stranger)
    rows = [task.item(claims, d) for d in task.plan(claims, np.random.default_rng(0), train=True)[:60]]
    batch = {key: torch.stack([r[key] for r in rows if r["scored"]]) for key in rows[0]}
    exact = sums(batch["image"][:, 4], batch["wrong"][:, 0])[:, 3]
    assert torch.allclose(exact, batch["dsc"][:, 0], atol=0.01)


def test_what_is_told_of_a_case(assessor, stranger):
    case = stranger.without_structures().with_masks({n: stranger.mask(n) for n in (*NAMES, "Brainstem")})
    told = assessor.predict(case).assessment
    assert (told.model, told.refused, told.coverage) == ("quality", None, 0.7)
    assert told.sha256 == assessor.card.sha256
    assert told.calibration.patients == 3
    assert not told.structures["Brainstem"].scored
    assert "not made for Brainstem" in told.structures["Brainstem"].why
    assert all(line.dsc is None for line in told.structures["Brainstem"].slices)
    for name in NAMES:
        lines = told.structures[name].slices
        held = np.flatnonzero(case.mask(name).array.any(axis=(1, 2)))
        assert set(held.tolist()) <= {line.k for line in lines}
        for line in lines:
            assert line.present is None
            assert line.surface_mm is not None
            assert 0 <= line.lower <= line.dsc <= 1
            assert line.quality in ("good", "medium", "bad")
            assert line.z_mm == pytest.approx(case.geometry.points((line.k, 0, 0))[2], abs=0.01)
        chance = told.error_maps[name]
        assert chance.array.dtype == np.uint8
        assert chance.geometry.spacing_mm == pytest.approx(case.geometry.spacing_mm)
        inside = case.geometry.voxels(chance.geometry.points((0, 0, 0)))
        assert np.abs(inside - np.rint(inside)).max() < 1e-6


def test_the_bound_that_is_told_is_the_quantile_less_what_calibration_asks_for(model, stranger):
    one = load_assessor(model, backend="torch", threads=1)
    one.use_detector, one._calibration = False, Calibration({"all": 0.05}, 0.9)
    seen = one.measure(one.work(stranger), "Parotid_L")
    told = one.predict(stranger.without_structures().with_masks({"Parotid_L": stranger.mask("Parotid_L")})).assessment
    lines = {line.k: line for line in told.structures["Parotid_L"].slices}
    rows = np.flatnonzero(seen.rows.contoured)
    wanted = {int(seen.rows.k[n]): min(max(float(seen.low[n]) - 0.05, 0.0), float(seen.dsc[n])) for n in rows}
    assert {k: lines[k].lower for k in wanted} == pytest.approx(wanted, abs=1e-4)
    assert any(lines[k].lower < lines[k].dsc - 0.04 for k in wanted)


def test_what_the_heads_say_is_read_as_it_was_taught(stranger):
    """Handmade answers: class, outline error and one pixel that is wrong, in a corner that no mirror leaves where it is."""
    task = AssessTask(SETTINGS).eval()
    one = Assessor(task, "torch", 1, use_detector=False)
    work = one.work(stranger)
    seen = one.measure(work, "Parotid_L")
    count, width, at = len(seen.rows.k), int(task.net.width), task.settings.numbers
    numbers = np.zeros((count, max(place.stop for place in at.values())), np.float32)
    maps = np.full((count, *SETTINGS.window), -9, np.float32)
    maps[:, 10, 3] = 9
    for logits, kind in (([5, 5], "good"), ([5, -5], "medium"), ([-5, -5], "bad")):
        numbers[:, at["class"]], numbers[:, at["surface"]] = logits, np.log1p(3.0)
        answers = np.concatenate([np.zeros((count, width), np.float32), numbers, maps.reshape(count, -1)], axis=1)
        told = one._read(answers, seen.rows, seen.first, seen.whole, 1)
        assert {quality(0.5, reached) for reached in told.reached} == {kind}
        assert told.outline_mm == pytest.approx(3, rel=1e-4)
    hot = np.argwhere(error_map(told, work, stranger.geometry).to(work.grid).array > 127)
    wanted = {(int(k), int(j) + 10, int(i) + 3) for k, (j, i) in zip(told.rows.k, told.first, strict=True)}
    inside = {place for place in wanted if all(0 <= a < n for a, n in zip(place, work.grid.shape, strict=True))}
    assert {tuple(place) for place in hot.tolist()} == inside
    assert inside


@pytest.mark.parametrize("axes", [np.diag([1.0, -1, -1])[:, ::-1], -np.eye(3)[::-1]])
def test_the_same_patient_on_turned_axes_gets_the_same_scores(assessor, stranger, axes):
    grid = stranger.geometry.reorient(axes)
    masks = {n: stranger.mask(n) for n in NAMES}
    here = Case("p", {"ct": stranger.ct}, masks)
    there = Case("p", {"ct": stranger.ct.to(grid)}, {n: m.to(grid) for n, m in masks.items()})
    one, two = (assessor.predict(c).assessment for c in (here, there))
    for name in NAMES:
        a, b = ({line.z_mm: line.dsc for line in told.structures[name].slices} for told in (one, two))
        assert a == b


def test_contours_and_masks_and_finer_pixels_get_about_the_same_scores(assessor, stranger):
    fine = stranger.geometry.resample((6, 1.25, 1.25))
    masks = {n: stranger.mask(n).to(fine) for n in NAMES}
    coarse = Case("p", {"ct": stranger.ct}, {n: stranger.mask(n) for n in NAMES})
    finer = Case("p", {"ct": stranger.ct.to(fine)}, masks)
    from oncontour.raster import trace

    drawn = Case("p", {"ct": stranger.ct.to(fine)}, contours={n: trace(m) for n, m in masks.items()})
    means = []
    for case in (coarse, finer, drawn):
        told = assessor.predict(case).assessment.structures
        means.append(np.mean([line.dsc for name in NAMES for line in told[name].slices if line.dsc]))
    assert means[1] == pytest.approx(means[2], abs=0.02)
    assert means[0] == pytest.approx(means[1], abs=0.12)


def test_gaps_are_bad_and_ends_are_looked_past(assessor, stranger):
    mask = stranger.mask("Parotid_L").array.copy()
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    mask[held[4]] = False
    case = stranger.without_structures().with_masks({"Parotid_L": Volume(mask, stranger.geometry)})
    told = assessor.predict(case).assessment.structures["Parotid_L"]
    (gap,) = [line for line in told.slices if line.k == held[4]]
    assert (gap.dsc, gap.quality) == (0.0, "bad")
    assert "gap" in gap.findings
    seen = assessor.measure(_work(assessor, case), "Parotid_L")
    made = replace(seen, present=np.where(seen.rows.below_mm < 0, 0.9, 0.1).astype(np.float32))
    assert past_the_ends(made).sum() == 2
    broken = replace(seen, present=np.where(seen.rows.below_mm < -6, 0.9, 0.1).astype(np.float32))
    assert past_the_ends(broken).sum() == 0


def _work(assessor, case):
    return assessor.work(case)


def test_classes_from_the_head_or_from_the_dsc():
    nothing = np.array([np.nan, np.nan], np.float32)
    assert [quality(d, nothing) for d in (0.79, 0.8, 0.94, 0.95)] == ["bad", "medium", "medium", "good"]
    assert [quality(0.5, np.array(p, np.float32)) for p in ([0.4, 0.9], [0.6, 0.4], [0.9, 0.6])] == ["bad", "medium", "good"]


def test_openvino_scores_as_torch_does(model, stranger):
    case = Case("p", {"ct": stranger.ct}, {"Parotid_L": stranger.mask("Parotid_L")})
    one, two = (load_assessor(model, backend=b, threads=1).predict(case).assessment.structures for b in ("torch", "openvino"))
    a, b = ([line.dsc for line in told["Parotid_L"].slices] for told in (one, two))
    assert a == pytest.approx(b, abs=2e-3)


# ---- what is refused, in words


def refused(assessor, case):
    told = assessor.predict(case).assessment
    assert all(not s.scored and all(line.dsc is None for line in s.slices) for s in told.structures.values())
    return told.refused


def test_another_image_is_refused(assessor, stranger):
    mask = {"Parotid_L": stranger.mask("Parotid_L")}
    thin = stranger.geometry.crop((10, 0, 0), (11, 48, 48))
    assert "no CT" in refused(assessor, Case("p", {"mr": stranger.ct}, mask))
    assert "1 slice" in refused(assessor, Case("p", {"ct": stranger.ct.to(thin)}, {"Parotid_L": mask["Parotid_L"].to(thin)}))
    positive = stranger.ct.map(lambda hu: (hu.astype(np.float32) + 1000).clip(0, 800))
    assert "no HU" in refused(assessor, Case("p", {"ct": positive}, mask))
    lying = Geometry.regular(stranger.geometry.shape, (6, 5, 5), axes=np.eye(3))
    assert "axial" in refused(
        assessor, Case("p", {"ct": Volume(stranger.ct.array, lying)}, {"Parotid_L": Volume(mask["Parotid_L"].array, lying)})
    )


def test_another_part_of_the_body_is_refused_with_its_name(assessor, stranger):
    own = Case("p", {"ct": stranger.ct}, {n: stranger.mask(n) for n in NAMES})
    assert "abdomen" in refused(assessor, transplanted(own, pelvis(1, (6, 5, 5))))


def test_what_looks_like_nothing_in_training_is_refused_by_the_gate(assessor, stranger):
    """A model that names no region: only the features tell that these organs lie in a pelvis."""
    free = Assessor(AssessTask.from_card(replace(assessor.card, region="")), "torch", 1)
    free.task.load_state_dict(assessor.task.state_dict())
    own = Case("p", {"ct": stranger.ct}, {n: stranger.mask(n) for n in NAMES})
    assert free.predict(own).assessment.refused is None
    assert "nothing the model was trained on" in refused(free, transplanted(own, pelvis(1, (6, 5, 5))))


def transplanted(case, other):
    """The masks of one patient on the CT of another, well inside it."""
    grid, masks = other.geometry, {}
    for name in case.structures:
        whole, mask = np.zeros(grid.shape, bool), case.mask(name).array[: grid.shape[0]]
        whole[: mask.shape[0], : mask.shape[1], : mask.shape[2]] = mask
        masks[name] = Volume(np.roll(whole, (4, 12), (1, 2)), grid)
    return Case("p", {"ct": other.ct}, masks)


def test_a_structure_outside_or_without_contour_is_not_scored(assessor, stranger):
    from oncontour.core.contours import Contours

    far = Contours((np.array([[900.0, 0, 0], [910, 0, 0], [910, 10, 0]]),))
    case = Case(
        "p", {"ct": stranger.ct}, {"Parotid_R": Volume(np.zeros(stranger.geometry.shape, bool), stranger.geometry)}, {"Parotid_L": far}
    )
    told = assessor.predict(case).assessment.structures
    assert "outside the image" in told["Parotid_L"].why
    assert "no contour" in told["Parotid_R"].why


def test_other_models_are_no_quality_models():
    with pytest.raises(ModelError, match="not contour quality"):
        load_assessor("hn-organs")


# ---- bound and detector


def test_the_bound_is_calibrated_on_patients_held_back(assessor):
    made = assessor.calibration
    assert (made.patients, made.method, made.coverage) == (3, "hierarchical", 0.7)
    assert set(assessor.card.made["held_back_patients"]).isdisjoint(assessor.card.made["trained_on"])
    low = np.array([0.9, 0.05], np.float32)
    held = assessor.bounds(measured(low), "Parotid_L")
    assert held.lower == pytest.approx(np.clip(low - made.offsets["all"], 0, 1))
    assert np.isnan(held.area_cm2).all()
    assert np.isnan(held.outline_mm).all(), "the model has no such head"


def measured(low, inputs=""):
    """Slices of which nothing but the quantile below the DSC is known, and that the other quantiles are 1 on their log scales."""
    n, blank = len(low), np.full(len(low), np.nan, np.float32)
    rows = Rows(np.arange(n, dtype=np.int32), np.ones(n, bool), np.zeros((n, 2), np.float32), blank, blank)
    maps, first = np.zeros((n, 0, 0), np.float32), np.zeros((n, 2), np.int32)
    ones = np.ones(n, np.float32)
    return Measured(
        rows,
        low,
        low,
        np.stack([blank, blank], 1),
        blank,
        blank,
        maps,
        first,
        np.ones(n, bool),
        np.stack([blank, blank], 1),
        0.0,
        0.0,
        blank,
        ones,
        ones,
        inputs,
    )


def test_a_bound_for_each_set_of_inputs(assessor):
    """By pencil: 0.25 (e^1.5 - 1) = 0.870 cm² and e^1.2 - 1 = 2.320 mm where the quantiles are raised by 0.5 and 0.2; lower 0.9 - 0.1."""
    own = Calibration({"all": 0.1}, 0.9, "hierarchical", 9, 90, area=0.5, outline=0.2)
    mine = replace(assessor, _calibration=Calibration(coverage=0.9, inputs={"own": own}))
    held = mine.bounds(measured(np.array([0.9], np.float32), "own"), "Parotid_L")
    assert [float(one[0]) for one in (held.lower, held.area_cm2, held.outline_mm)] == pytest.approx([0.8, 0.8704, 2.3201], abs=1e-4)
    none = mine.bounds(measured(np.array([0.9], np.float32), "both"), "Parotid_L")
    assert all(np.isnan(one).all() for one in (none.lower, none.area_cm2, none.outline_mm)), "calibrated for what was given, or not at all"
    words = calibration_words(Calibration(coverage=0.9, inputs={"own": own}))
    assert calibration_of({"calibration": words}) == Calibration(coverage=0.9, inputs={"own": own}), "there and back through a card"


def test_a_bound_that_was_made_for_no_set_of_inputs_is_none_for_any(assessor):
    whole = replace(assessor, _calibration=Calibration({"all": 0.1}, 0.9))
    assert whole.bounds(measured(np.array([0.9], np.float32)), "Parotid_L").lower == pytest.approx([0.8])
    assert np.isnan(whole.bounds(measured(np.array([0.9], np.float32), "own"), "Parotid_L").lower).all()


def observed_of(inputs, patients, low=0.9):
    """A slice of each of so many patients, true 0.5, given ``inputs``; nothing had a bound."""
    return [
        Scored(f"p{n}", "s", "Parotid_L", 3, 0.5, 0.9, low, nan, 1.0, 1.0, 0.9, True, True, 50.0, 0.5, True, inputs=inputs)
        for n in range(patients)
    ]


@pytest.mark.parametrize(
    ("coverage", "same", "left"), [(0.8, True, {"mask", "both", "reference"}), (0.8, False, {"mask"}), (0.5, True, set())]
)
def test_a_set_of_inputs_keeps_its_bound_only_where_that_is_still_true(assessor, monkeypatch, coverage, same, left):
    """ "own" is made anew. Of the others a bound for another part of slices, or made with another reference model, is none any more."""
    one = Calibration({"all": 0.1}, 0.8, "hierarchical", 35, 350, "before")
    asked = SimpleNamespace(card=SimpleNamespace(name="r", sha256="a" * 64))
    monkeypatch.setattr(Assessor, "reference_model", asked)
    mine = Assessor(AssessTask.from_card(assessor.card), "torch", 1, _calibration=Calibration({}, 0.8, inputs=dict.fromkeys(GIVEN, one)))
    mine.task._card = replace(mine.card, made={**mine.card.made, "opinion": {"model": "r", "sha256": ("a" if same else "b") * 64}})
    made = recalibrated(mine, Observed(slices=observed_of("own", 10)), coverage=coverage, data="ours")
    assert set(made.kept) == left
    assert set(made.calibration.inputs) == left | {"own"}
    assert (made.calibration.inputs["own"].data, made.calibration.inputs["own"].offsets) == ("ours", {"all": pytest.approx(0.4)})
    assert {one.coverage for one in made.calibration.inputs.values()} == {coverage}
    assert calibration_of(made.card.made) == made.calibration


def test_a_set_of_inputs_with_few_patients_stops_no_other(assessor):
    one = Calibration({"all": 0.1}, 0.8, "hierarchical", 35, 350, "before")
    mine = Assessor(AssessTask.from_card(assessor.card), "torch", 1, _calibration=Calibration({}, 0.8, inputs={"mask": one}))
    some, few = observed_of("own", 10), observed_of("mask", 2)
    made = recalibrated(mine, Observed(slices=[*some, *few]), coverage=0.8)
    assert (dict(made.few), dict(made.kept)) == ({"mask": 2}, {"mask": one})
    assert set(made.bounds) == {"own"}
    with pytest.raises(TrainingError, match="2 patients are too few"):
        recalibrated(mine, Observed(slices=few), coverage=0.8)


def test_the_bound_of_before_is_judged_by_the_slices_that_had_one(assessor):
    """Five slices below their bound, five without one: it held for none."""
    had = [replace(s, lower=0.7) for s in observed_of("", 5)]
    without = [replace(s, patient=f"q{n}") for n, s in enumerate(observed_of("", 5))]
    mine = Assessor(AssessTask.from_card(assessor.card), "torch", 1)
    made = recalibrated(mine, Observed(slices=[*had, *without]), coverage=0.8)
    assert made.before.mean == 0


def test_upper_bounds_are_raised_until_they_hold():
    """Twelve patients of a slice each, the truth 0.1 to 1.2 above the quantile: for 90 % with a patient more, the twelfth counts."""
    patients, short = [f"p{n:02}" for n in range(12)], [0.1 * (n + 1) for n in range(12)]
    made = offsets(
        [0.5] * 12,
        [0.6] * 12,
        patients,
        ["a"] * 12,
        coverage=0.9,
        method="hierarchical",
        by="all",
        area=short,
        outline=[*short[:10], nan, nan],
    )
    assert made.area == pytest.approx(1.2)
    assert made.outline == pytest.approx(1.0), "slices without an outline say nothing of it"


def test_offsets_for_all_and_for_each_structure():
    patients = [f"p{n}" for n in range(12)] * 2
    structures = ["a"] * 12 + ["b"] * 12
    low = [0.5] * 12 + [0.9] * 12
    made = offsets(low, [0.6] * 24, patients, structures, coverage=0.9, method="hierarchical", by="structure")
    assert made.offsets == {"all": pytest.approx(0.3), "a": pytest.approx(-0.1), "b": pytest.approx(0.3)}
    few = offsets(low[:3], [0.6] * 3, ["x", "y", "z"], ["a"] * 3, coverage=0.9, method="hierarchical", by="all")
    assert few.offsets == {}


def test_where_the_quantile_was_too_high_calibration_lowers_it(cases, model, monkeypatch):
    """All of it predicted at 0.9 where 0.5 is true: 0.4 to be taken off; a net that promises 1 is lowered after training, too."""
    mine, seen = load_assessor(model, backend="torch", threads=1), Observed()
    for seed in range(60, 64):
        case = head_neck(seed, *GRID)
        observe(mine, case, spoiled(case, "noise", (0.5,)), seen)
    sure = replace(seen, slices=[replace(s, low=0.9, true=0.5) for s in seen.slices])
    assert recalibrated(mine, sure, coverage=0.8).card.made["calibration"]["offsets"] == {"all": pytest.approx(0.4)}
    task = AssessTask(replace(SETTINGS, coverage=0.4, variants=3))
    features = np.random.default_rng(0).random((10_000, int(task.net.width)), np.float32)

    def sure_of_all(_task, _candidates, rows, _given):
        ones = np.ones(len(rows), np.float32)
        return calibrating._Answers(features[: len(rows)], ones, ones * nan, ones * nan)

    monkeypatch.setattr(calibrating, "_answers", sure_of_all)
    made = calibrating.calibrate_on_candidates(task, task.samples(cases[0]), task.samples(cases[1]))
    assert made.offsets["all"] > 0.05


def test_recalibrated_on_other_patients(model, cases, tmp_path):
    mine = load_assessor(model, backend="torch", threads=1)
    seen = Observed()
    for seed in range(60, 64):
        case = head_neck(seed, *GRID)
        observe(mine, case, spoiled(case, "noise", (0.5,)), seen)
    made = recalibrated(mine, seen, coverage=0.8, data="ours")
    card = made.card
    assert card.made["calibration"]["patients"] == 4
    assert card.made["calibration"]["coverage"] == 0.8
    assert "limit" in card.made["calibration"]["gate"]["Parotid_L"]
    assert calibration_of(card.made) == made.calibration
    save_model(mine.task, tmp_path / "new.safetensors", card)
    again = load_assessor(tmp_path / "new.safetensors", backend="torch", threads=1)
    assert again.predict(cases[0]).assessment.coverage == 0.8
    with pytest.raises(TrainingError, match="too few"):
        recalibrated(mine, Observed(slices=[s for s in seen.slices if s.patient == seen.slices[0].patient]), coverage=0.9)


def test_the_detector_measures_in_units_of_spread():
    rng = np.random.default_rng(0)
    known = rng.normal(0, 1, (4000, 6)) * np.array([1, 2, 3, 4, 5, 6]) + 7
    assert distance(known, *fitted(known)).mean() == pytest.approx(1, abs=0.1)
    detector = Detector(np.zeros((2, 6), np.float32), np.zeros((2, 6, 6), np.float32), np.zeros(2, np.float32))
    detector.learn(known.astype(np.float32), 1)
    detector.set_limit(detector.distance(known[:100].astype(np.float32), 1), 1)
    assert detector.knows(1)
    assert not detector.knows(0)
    odd = np.array([[60, 7, 7, 7, 7, 7]], np.float32)
    assert detector.distance(odd, 1)[0] > 5 * float(detector.limit[1])


def test_both_empty_slices_are_left_out_and_counted_and_unseen_ones_too(assessor, stranger):
    truth = stranger.mask("Parotid_L").array
    held = np.flatnonzero(truth.any(axis=(1, 2)))
    half = truth.copy()
    half[held[-5] :] = False
    seen = Observed()
    observe(assessor, stranger, {"a": {"Parotid_L": Volume(half, stranger.geometry)}}, seen)
    assert seen.both_empty == len(truth) - len(held)
    assert seen.unseen == 5 - SETTINGS.beyond
    assert sum(not s.contoured and s.true == 0 for s in seen.slices) == SETTINGS.beyond
    empty = Observed()
    observe(assessor, stranger, {"a": {"Parotid_L": Volume(np.zeros_like(half), stranger.geometry)}}, empty)
    assert (empty.missed, empty.unseen) == (1, len(held))


def test_cases_without_the_structures_teach_nothing(stranger):
    grid = stranger.geometry
    made = candidate_contours(stranger.without_structures(), grid, NAMES, step=1, beyond=2, variants=2, families=["shift"], seed=0)
    assert made == []


# ---- contours smaller than the pixels of the net, structures and patients that it never saw


FINE = (6, 1.25, 1.25)


def fine(stranger, mask_of):
    """The stranger on fine pixels, its left parotid changed by ``mask_of``, with the other organs as they are."""
    grid = stranger.geometry.resample(FINE)
    masks = {name: stranger.mask(name).to(grid) for name in NAMES}
    changed = masks["Parotid_L"].array.copy()
    mask_of(changed)
    return Case("p", {"ct": stranger.ct.to(grid)}, masks | {"Parotid_L": Volume(changed, grid)})


def dot(mask, k):
    """Nothing left of slice ``k`` but two pixels in its middle."""
    j, i = (int(v.mean()) for v in np.nonzero(mask[k]))
    mask[k] = False
    mask[k, j, i : i + 2] = True


def test_a_slice_smaller_than_the_nets_pixels_is_listed_unscored_and_never_called_a_gap(assessor, stranger):
    held: list[int] = []

    def tapered(mask):
        held.extend(np.flatnonzero(mask.any(axis=(1, 2))).tolist())
        for k in (held[3], held[-1]):
            dot(mask, k)

    case = fine(stranger, tapered)
    told = assessor.predict(case).assessment.structures["Parotid_L"]
    lines = {line.k: line for line in told.slices}
    assert set(held) <= set(lines)
    for k in (held[3], held[-1]):
        assert (lines[k].dsc, lines[k].quality) == (None, None)
        assert lines[k].findings.count("small") == 1
    assert [one.slices for one in told.findings if one.code == "small"] == [(held[3], held[-1])]
    assert all(lines[k].dsc is not None for k in held[4:-1])


def test_a_structure_smaller_than_the_nets_pixels_is_not_scored_and_stops_nothing(assessor, stranger):
    def one_dot(mask):
        k = int(np.flatnonzero(mask.any(axis=(1, 2)))[2])
        dot(mask, k)
        mask[:k] = mask[k + 1 :] = False

    case = fine(stranger, one_dot)
    told = assessor.predict(case).assessment.structures
    assert not told["Parotid_L"].scored
    assert told["Parotid_L"].why == "It is smaller than what the model sees, pixels of 5 x 5 mm."
    assert told["Parotid_R"].scored
    seen = Observed()
    truth = Case("p", {"ct": case.ct}, {n: stranger.mask(n).to(case.geometry) for n in NAMES})
    observe(assessor, truth, {"a": {"Parotid_L": case.mask("Parotid_L")}}, seen)
    assert (seen.too_small, seen.slices) == (1, [])


def test_a_structure_that_training_never_saw_is_not_scored(assessor, stranger):
    strange = Assessor(AssessTask.from_card(assessor.card), "torch", 1)
    strange.task.load_state_dict(assessor.task.state_dict())
    strange.task.detector.limit[1] = 0
    case = Case("p", {"ct": stranger.ct}, {n: stranger.mask(n) for n in NAMES})
    told = strange.predict(case).assessment.structures
    assert told["Parotid_L"].why == f"The quality model {strange.card.name} never saw Parotid_L in training."
    assert told["Parotid_R"].scored
    seen = Observed(features={(f"p{n}", "a", "Parotid_L"): np.ones((2, 32), np.float32) * n for n in range(DETECTOR_PATIENTS)})
    _detector_anew(strange.task.detector, NAMES, seen)
    assert not strange.task.detector.knows(1), "no number of patients makes a detector know what the net never learned"


def test_a_patient_whom_the_model_would_refuse_calibrates_nothing(assessor, stranger):
    own = Case("p", {"ct": stranger.ct}, {n: stranger.mask(n) for n in NAMES})
    elsewhere, seen = transplanted(own, pelvis(1, (6, 5, 5))), Observed()
    with pytest.raises(InputError, match="another part of the body"):
        check_scored(assessor, elsewhere)
    check_scored(assessor, own)
    observe(assessor, elsewhere, {"a": dict(elsewhere.masks)}, seen)
    assert seen.slices, "whoever compares nets looks at it all the same"


def test_a_bound_by_structure_is_never_another_ones_and_the_old_figures_go(model):
    mine, seen = load_assessor(model, backend="torch", threads=1), Observed()
    for seed in range(60, 64):
        case = head_neck(seed, *GRID)
        asked = {n: case.mask(n) for n in (NAMES if seed < 62 else NAMES[:2])}
        observe(mine, case, {"a": asked}, seen)
    with pytest.raises(TrainingError, match="bound of its own that holds for 80% of slices, of Parotid_R 2"):
        recalibrated(mine, seen, coverage=0.8, by="structure")
    mine.task._card = replace(mine.card, metrics={"by": {"a": {"mae": 0.1, "covered_by_the_bound": 0.9}}})
    card = recalibrated(mine, seen, coverage=0.8).card
    assert card.metrics == {"by": {"a": {"mae": 0.1}}}


def test_an_offset_is_rounded_so_that_the_bound_still_holds():
    """Of nine patients with one slice each the bound of 90 % must hold for all: for the worst as well, to the last digit."""
    made = offsets([0.5] * 8 + [0.812344], [0.5] * 9, list("abcdefghi"), ["x"] * 9, coverage=0.9, method="hierarchical", by="all")
    assert made.offsets["all"] == 0.31235
    assert offsets([0.8], [0.5], ["a"], ["x"], coverage=0.5, method="hierarchical", by="all").offsets["all"] == 0.3


def test_a_raised_bound_never_stands_above_the_prediction(assessor, stranger):
    raised = Assessor(assessor.task, "torch", 1, _calibration=Calibration({"all": -0.5}))
    case = Case("p", {"ct": stranger.ct}, {"Parotid_L": stranger.mask("Parotid_L")})
    lines = raised.predict(case).assessment.structures["Parotid_L"].slices
    assert all(line.lower <= line.dsc for line in lines)


def test_a_structure_in_no_mask_to_learn_from_is_told_and_never_scored(cases, tmp_path):
    settings = replace(SETTINGS, structures=(*NAMES, "Kidney_L"), draws=32, variants=2)
    done = fit(
        AssessTask(settings), cases[:2], tmp_path, TrainSettings(epochs=1, batch=16, validation=0.0, threads=1), finish=after_training
    )
    assert done.card.made["not_learned"] == ["Kidney_L"]
    assert "no patient to learn from has Kidney_L" in done.notes[0]
    case = cases[0].without_structures().with_masks({"Kidney_L": cases[0].mask("Parotid_L")})
    told = load_assessor(done.model, backend="torch", threads=1).predict(case).assessment.structures
    assert told["Kidney_L"].why == f"The quality model {done.card.name} never saw Kidney_L in training."


def test_what_a_first_model_knew_is_still_scored_by_the_second_and_what_it_never_saw_is_not(cases, tmp_path):
    settings = replace(SETTINGS, structures=("Bone_Mandible", "Parotid_L", "Kidney_L"), draws=32, variants=2)
    once = TrainSettings(epochs=1, batch=16, validation=0.0, threads=1)
    first = fit(AssessTask(settings), cases[:2], tmp_path / "first", once, finish=after_training)
    bare = [Case(c.id, {"ct": c.ct}, {"Parotid_L": c.mask("Parotid_L")}) for c in cases[2:4]]
    second = fit(AssessTask(settings), bare, tmp_path / "second", once, start=first.model, finish=after_training)
    assert second.notes[0].endswith("masks that are learned from: what the model knows of it is what model knew")
    assert second.card.made["not_learned"] == ["Kidney_L"]
    detector = load_assessor(second.model, backend="torch", threads=1).task.detector
    assert [detector.knows(n) for n in range(3)] == [True, True, False]

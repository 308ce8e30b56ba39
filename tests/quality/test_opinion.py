"""A second opinion: what a contour model thinks before it decides, how it travels, and that the quality model hears it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oncontour.commands.run_contours import contour, judge
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, keeping_probabilities, load_contourer
from oncontour.contour.probabilities import ReferenceProbabilities
from oncontour.contour.task import ContourTask
from oncontour.core.assessment import Reference
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import ModelError, TrainingError
from oncontour.learn.task import load_task, save_model
from oncontour.ops.augment import Move
from oncontour.ops.tidy import Tidy
from oncontour.phantom import head_neck
from oncontour.quality.calibrate import recalibrated
from oncontour.quality.candidates import UNLIKELY, ProbabilityMap
from oncontour.quality.inputs import AssessSettings, load_reference
from oncontour.quality.observe import Observed, observe
from oncontour.quality.predict import Assessor
from oncontour.quality.score import score
from oncontour.quality.task import AssessTask
from tests.phantoms import NECK as NAMES
from tests.phantoms import SMALL_GRID as GRID


@pytest.fixture(scope="module")
def task(drawer):
    torch.manual_seed(0)
    s = AssessSettings(
        (*NAMES, "PTV_7000"),
        net_options={"width": 32, "depth": 1, "stem": (8, 16, 24)},
        opinion=str(drawer),
        spacing_mm=(6, 5, 5),
        window=(32, 32),
        variants=3,
        draws=64,
    )
    return AssessTask(s).eval()


def drawn(case):
    return case.without_structures().with_masks({n: case.mask(n) for n in NAMES})


# ---- as an array


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_a_window_of_a_cropped_opinion_is_the_window_of_the_whole(seed):
    rng = np.random.default_rng(seed)
    whole = np.zeros((7, 12, 10), np.uint8)
    low, high = np.sort(rng.integers(0, (8, 13, 11), (2, 3)), axis=0)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    whole[box] = rng.integers(0, 256, whole[box].shape)
    padded = np.pad(whole, 20)
    slices, first, size = rng.integers(-2, 9, 3).tolist(), tuple(rng.integers(-9, 12, 2).tolist()), (6, 9)
    found = ProbabilityMap.of(whole).window(slices, first, size)
    wanted = padded[np.array(slices) + 20, first[0] + 20 : first[0] + 26, first[1] + 20 : first[1] + 29]
    assert (np.where(wanted > UNLIKELY, wanted, 0) == np.where(found > UNLIKELY, found, 0)).all()


def test_chances_are_carried_as_masks_are():
    """A step of 3 mm along j is a row of 3 mm; half a step is halfway between; beyond the source there is none."""
    values = np.zeros((1, 5, 4), np.int16)
    values[0, 2] = 200
    centre, size = (0.0, 2.0, 1.5), (1, 5, 4)
    plain = Move().carry(values, (2.0, 3.0, 3.0), centre, size)
    assert (plain == values).all()
    assert Move(shift_mm=(0, 3, 0)).carry(values, (2.0, 3.0, 3.0), centre, size)[0, :, 0].tolist() == [0, 200, 0, 0, 0]
    assert Move(shift_mm=(0, 1.5, 0)).carry(values, (2.0, 3.0, 3.0), centre, size)[0, :, 0].tolist() == [0, 100, 100, 0, 0]
    assert not Move(shift_mm=(0, 30, 0)).carry(values, (2.0, 3.0, 3.0), centre, size).any()
    # Shade is for grey values alone.
    assert (Move(hu_shift=50, hu_scale=2, noise_hu=9).carry(values, (2.0, 3.0, 3.0), centre, size) == values).all()


def test_an_opinion_lies_where_the_model_saw_it_on_any_grid():
    grid = Geometry.regular((4, 6, 5), (2, 3, 3))
    chances = np.zeros((2, 4, 6, 5), np.uint8)
    chances[1, 2, 3, 1] = 240
    opinion = ReferenceProbabilities("m", "s", ("A", "B"), Volume(chances, grid))
    assert opinion.of("C") is None
    assert not opinion.of("A").array.any()
    said = opinion.of("B")
    turned = grid.reorient(-np.eye(3)[::-1])
    k, j, i = np.rint(turned.voxels(grid.points((2, 3, 1)))).astype(int)
    assert said.to(turned).array[k, j, i] == 240
    wider = grid.crop((-2, -2, -2), (6, 8, 7))
    assert said.to(wider).array[4, 5, 3] == 240
    assert said.to(wider).array.sum() == 240
    between = grid.resample((2, 1.5, 3))
    assert said.to(between).array.max() <= 240


# ---- from the contour model


def test_drawing_and_asking_give_the_same_opinion(case, drawer):
    contourer = load_contourer(drawer, backend="torch", rules=Tidy.off(), threads=1)
    assert not contourer.predict(case).probabilities
    after = keeping_probabilities(contourer).predict(case).probabilities
    alone = contourer.reference(case)
    assert alone.sha256 == contourer.card.sha256
    assert tuple(after) == alone.structures == NAMES
    assert all((after[name].array == alone.of(name).array).all() for name in NAMES)
    grid = alone.probabilities.geometry
    drawn = contourer.predict(Case("p", {"ct": case.ct.to(grid)})).masks
    best = alone.probabilities.array.argmax(axis=0)
    for number, name in enumerate(NAMES):
        sure = (alone.probabilities.array[number] > 128) & (best == number)
        assert (drawn[name].array[sure]).mean() > 0.99 if sure.any() else True


def test_too_many_classes_are_not_kept_unless_asked_for(case, drawer):
    voxels_mb = 3 * 24 * 40 * 40 / 1e6
    contourer = replace(load_contourer(drawer, backend="torch", threads=1), keep_probabilities=True, memory_mb=3.9 * voxels_mb)
    assert not contourer.predict(case).probabilities
    assert contourer.reference(case).probabilities.array.any()
    with pytest.raises(ModelError, match="are too many to be kept"):
        replace(contourer, memory_mb=0.9 * voxels_mb).reference(case)


def test_the_main_job_hands_on_how_sure_the_drawer_of_each_structure_was(case, drawer, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(5)
    s = ContourSettings(("Parotid_R", "Brainstem"), net="unet3d", net_options={"widths": (4, 8)}, spacing_mm=(6, 5, 5), window=(16, 24, 24))
    save_model(ContourTask(s), other)
    found, _ = contour(case, [load_contourer(one, backend="torch", threads=1) for one in (drawer, other)], chances=True)
    kept = found.probabilities
    assert tuple(kept) == (*NAMES, "Brainstem")
    theirs = [load_contourer(path, backend="torch", threads=1).reference(case) for path in (drawer, other)]
    assert (kept["Parotid_R"].array == theirs[0].of("Parotid_R").array).all()
    assert (kept["Brainstem"].array == theirs[1].of("Brainstem").array).all()
    found, _ = contour(case, [load_contourer(drawer, backend="torch", threads=1)])
    assert not found.probabilities


# ---- to the quality model


def test_the_net_sees_the_opinion_where_the_mask_is(case, task):
    claims = [c for c in task.samples(case) if c.source == "truth" and c.reference is not None]
    said = load_reference(task.settings.opinion, "auto", None).reference(case.without_structures())
    assert len(claims) == len(NAMES)
    for claim in claims:
        draw = next(d for d in task.plan([claim], np.random.default_rng(0), train=False) if task.item([claim], d)["scored"])
        image = task.item([claim], draw)["image"].numpy()
        name = task.settings.structures[claim.structure]
        whole = said.of(name).to(task.settings.working_grid(case.geometry)).array[int(draw.centre[0])]
        corner = [int(np.floor(c - 15.5 + 0.5)) for c in draw.centre[1:]]
        padded = np.pad(whole, 40)[corner[0] + 40 : corner[0] + 72, corner[1] + 40 : corner[1] + 72].astype(np.float32)
        assert image.shape[0] == task.settings.channels == 10
        assert np.abs(image[7] * 255 - padded * (padded > UNLIKELY)).max() <= UNLIKELY


def test_a_structure_without_an_opinion_has_an_empty_one(case, task):
    case = case.with_masks({"PTV_7000": case.mask("Parotid_L")})
    claims = task.samples(case)
    assert all((c.reference is None) == (c.structure == 3) for c in claims)
    draws = task.plan(claims, np.random.default_rng(0), train=True)
    assert {claims[d.sample].structure for d in draws} == {0, 1, 2, 3}
    for draw in draws:
        if claims[draw.sample].structure == 3:
            assert not task.item(claims, draw)["image"][6:9].any()
    with pytest.raises(TrainingError, match="gave no probabilities of these structures"):
        task.plan([c for c in claims if c.structure == 3], np.random.default_rng(0), train=True)


def test_mirrored_draws_mirror_the_opinion(case, task):
    claim = next(c for c in task.samples(case) if c.structure == 1)
    rows = task.plan([claim], np.random.default_rng(0), train=False)
    from oncontour.quality.task import Frame, cut_map

    k, centre = int(rows[0].centre[0]), rows[0].centre[1:]
    frames = [(Frame.of(claim.scan.spacing_mm, 1, centre, (32, 32), move), move) for move in (Move(), Move(flip_left_right=True))]
    plain, turned = (cut_map(claim.reference, claim.scan.spacing_mm, [k], frame, move) for frame, move in frames)
    assert plain.any()
    assert turned == pytest.approx(plain[..., ::-1])


def test_what_is_said_is_heard_and_whose_it_was_is_told(case, task, drawer, monkeypatch):
    assessor = Assessor(task, "torch", 1, use_detector=False)
    own = drawn(case)
    alone = assessor.predict(own).assessment
    said = load_reference(str(drawer), "torch", 1).reference(own.without_structures())
    assert alone.reference == Reference("contour", said.sha256)
    silent = replace(said, probabilities=said.probabilities.map(np.zeros_like))
    monkeypatch.setattr(Contourer, "reference", lambda *_: silent)
    heard = assessor.predict(own).assessment
    assert heard.structures != alone.structures


def test_the_hand_that_drew_is_known_by_its_agreement():
    """Of 10 voxels 8 are shared: DSC 0.8; the median of 1, 0.8 and another 1 is one hand's, of 1, 0.8 and 0.8 it is not."""
    grid = Geometry.regular((4, 10, 10), (3, 4, 4))
    chances = np.zeros((3, 4, 10, 10), np.uint8)
    chances[:, 1, 2, :] = 128
    chances[:, 2, 2, :] = 127
    opinion = ReferenceProbabilities("m", "s", NAMES, Volume(chances, grid))
    same, other = np.zeros((4, 10, 10), bool), np.zeros((4, 10, 10), bool)
    same[1, 2, :], other[1, 2, :8], other[1, 3, :2] = True, True, True

    def masks(*arrays):
        return {name: Volume(array, grid) for name, array in zip(NAMES, arrays, strict=False)}

    assert opinion.of_one_hand(masks(same, other, same))
    assert not opinion.of_one_hand(masks(same, other, other))
    assert not opinion.of_one_hand({"PTV_7000": Volume(same, grid)})
    assert not opinion.of_one_hand(masks(np.zeros_like(same)))
    stricter = replace(opinion, probabilities=Volume(np.minimum(chances, 180), grid), thresholds=(0.8,) * len(NAMES))
    assert replace(stricter, thresholds=()).of_one_hand(masks(same, same, same))
    assert not stricter.of_one_hand(masks(same, same, same)), "it draws from 0.8 on, and would have drawn nothing here"
    finer = grid.resample((3, 1, 1))
    assert opinion.of_one_hand({n: m.to(finer) for n, m in masks(same, same, same).items()})


def test_what_the_reference_model_drew_is_refused_by_a_model_that_must_have_one(case, task, drawer, monkeypatch):
    """A model is no reference for its own work: a quality model that must have one refuses such contours."""
    said = load_reference(str(drawer), "torch", 1).reference(case.without_structures())
    chances = np.stack([np.where(case.mask(n).to(said.probabilities.geometry).array, 250, 5) for n in NAMES]).astype(np.uint8)
    agreeing = replace(said, probabilities=Volume(chances, said.probabilities.geometry))
    monkeypatch.setattr(Contourer, "reference", lambda *_: agreeing)
    own = drawn(case)
    assessor = Assessor(task, "torch", 1, use_detector=False)
    told = assessor.predict(own).assessment
    assert told.refused == "contour drew these contours itself, so it cannot be their reference."
    assert not any(one.scored for one in told.structures.values())
    assert score(own, assessor)[0].assessment.refused == told.refused


def test_without_a_second_opinion_none_is_asked_for(case):
    plain = AssessTask(AssessSettings(NAMES, net_options={"width": 32, "depth": 1}, spacing_mm=(6, 5, 5), window=(32, 32)))
    told = Assessor(plain.eval(), "torch", 1, use_detector=False).predict(drawn(case)).assessment
    assert told.reference is None


def test_who_cannot_be_asked_is_said(case, task, tmp_path):
    other = save_model(task, tmp_path / "quality.safetensors")
    assert (tmp_path / other.settings["opinion"]).resolve() == Path(task.settings.opinion).resolve()
    assert load_task(tmp_path / "quality.safetensors").settings.opinion == str(Path(task.settings.opinion).resolve())
    with pytest.raises(ModelError, match="not contours"):
        load_reference(str(tmp_path / "quality.safetensors"), "torch", 1)
    gone = AssessTask(replace(task.settings, opinion="nowhere.safetensors")).eval()
    with pytest.raises(ModelError, match=r"nowhere\.safetensors"):
        Assessor(gone, "torch", 1).predict(drawn(case))


def test_with_another_version_of_the_asked_model_there_is_no_bound_and_it_is_said(case, task):
    made = {"opinion": {"model": "contour", "sha256": "0" * 64}, "calibration": {"offsets": {"all": 0.1}, "coverage": 0.9}}
    bound = AssessTask(
        task.settings, replace(task.card(), made={**made, "opinion": load_reference(task.settings.opinion, "torch", 1).card.__dict__})
    )
    other = AssessTask(task.settings, replace(task.card(), made=made))
    for one, known in ((bound, True), (other, False)):
        one.load_state_dict(task.state_dict())
        scored, models = score(drawn(case), Assessor(one.eval(), "torch", 1, use_detector=False))
        told = scored.assessment
        lowest = {line.lower is not None for s in told.structures.values() for line in s.slices if line.quality and line.dsc}
        assert lowest == {known}
        assert (told.reference.calibrated_with is not None) != known
        assert bool(models[0]["notes"]) != known
        assert all("no bound is given" in note for note in models[0]["notes"])


def test_calibrating_writes_whom_it_asked(case, task):
    cases = [head_neck(seed, *GRID) for seed in range(3, 6)]
    assessor = Assessor(task, "torch", 1, use_detector=False)
    seen = Observed()
    for one in cases:
        observe(assessor, one, {"x": {n: one.mask(n) for n in NAMES}}, seen)
    card = recalibrated(assessor, seen, coverage=0.6).card
    assert card.made["opinion"] == {"model": "contour", "sha256": load_reference(task.settings.opinion, "torch", 1).card.sha256}


def test_a_shipped_model_is_asked_whatever_lies_in_the_folder(drawer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hn-organs").mkdir()
    assert load_reference("hn-organs", "torch", 1).card.name == "hn-organs"
    assert isinstance(load_reference(str(drawer), "torch", 1), Contourer)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(drawer.read_bytes())
    first = load_reference(str(copy), "torch", 1)
    assert load_reference(str(copy), "torch", 1) is first
    torch.manual_seed(9)
    save_model(ContourTask(first.task.settings), copy)
    assert load_reference(str(copy), "torch", 1).card.sha256 != first.card.sha256, "a file that was replaced is read anew"


def test_in_a_run_what_the_quality_model_cannot_do_the_rules_do(case, task):
    failed: list[str] = []
    broken = Assessor(AssessTask(replace(task.settings, opinion="nowhere.safetensors")).eval(), "torch", 1)
    judged, models = judge(
        replace(drawn(case), probabilities={NAMES[0]: case.mask(NAMES[0]).map(lambda inside: inside.astype(np.uint8))}), broken, failed
    )
    assert models == []
    assert "nowhere" in failed[0]
    assert set(judged.assessment.structures) == set(NAMES)
    assert not judged.probabilities

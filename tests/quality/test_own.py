"""A quality model that knows how sure the drawing model was: what is kept of that, how it travels, and who judges where it is missing."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from oncontour import report
from oncontour.commands.calibrate import observe_cohort
from oncontour.commands.predict import predict
from oncontour.commands.run_contours import contour, judge
from oncontour.contour.predict import Contourer, keeping_probabilities, load_contourer
from oncontour.contour.probabilities import ReferenceProbabilities, by_structure
from oncontour.contour.task import ContourTask
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, TrainingError
from oncontour.io.cohort import Cohort
from oncontour.io.image.layout import CHANCES, write_layout
from oncontour.learn.task import save_model
from oncontour.many import Many
from oncontour.ops.tidy import Tidy
from oncontour.phantom import head_neck
from oncontour.quality import score as scoring
from oncontour.quality.candidates import SEGMENTER, UNLIKELY
from oncontour.quality.inputs import GIVEN, AssessSettings
from oncontour.quality.observe import Observed, observe
from oncontour.quality.predict import NO_MAP, Assessor
from oncontour.quality.segmenters import contours_about, probabilities_about, sources, with_candidates, write_probabilities
from oncontour.quality.task import AssessTask
from oncontour.report.assess_record import assess_record
from tests.phantoms import NECK as NAMES
from tests.phantoms import SMALL_GRID as GRID

SMALL = {"net_options": {"width": 32, "depth": 1, "stem": (8, 16, 24)}, "spacing_mm": (6, 5, 5), "window": (32, 32)}


@pytest.fixture(scope="module")
def patients(tmp_path_factory, case):
    root = tmp_path_factory.mktemp("patients")
    for seed in (3, 4, 5):
        write_layout(head_neck(seed, *GRID), root / f"phantom-00{seed}")
    return root


@pytest.fixture(scope="module")
def claims(tmp_path_factory, patients, drawer):
    out = tmp_path_factory.mktemp("claims")
    predict(patients, out=out, model=[str(drawer)], seen=True, chances=True, backend="torch", many=Many(engine="here"))
    return out


def drawn_by(drawer, case):
    """As a run leaves it for a quality model."""
    return contour(case, [load_contourer(drawer, backend="torch", threads=1)], chances=True)[0]


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(0)
    return AssessTask(AssessSettings((*NAMES, "PTV_7000"), own=True, variants=3, generated=0.0, draws=64, **SMALL)).eval()


def test_what_was_kept_is_what_the_model_thought_and_what_it_drew_follows(claims, patients, drawer):
    cohort = Cohort.open(patients)
    for id in cohort.ids:
        case = cohort[id]
        kept, drawn = (about(case, sources([claims]))["drawer"] for about in (probabilities_about, contours_about))
        assert tuple(sorted(kept)) == tuple(sorted(NAMES))
        thought = load_contourer(drawer, backend="torch", threads=1).reference(case)
        assert all(kept[n].geometry.same_grid(thought.probabilities.geometry) for n in NAMES)
        assert all((kept[n].array == thought.of(n).array).all() for n in NAMES)
        best = np.max([kept[n].array for n in NAMES], axis=0)
        for n in NAMES:
            inside = drawn[n].to(kept[n].geometry).array
            assert (kept[n].array[inside] >= 127).all(), "drawn where it was thought more likely than not"
            assert (kept[n].array[inside] == best[inside]).all(), "and of several the likeliest"


def test_drawn_before_without_chances_is_drawn_again_with_them_and_counted_once(patients, drawer, tmp_path):
    asked = {"out": tmp_path, "model": [str(drawer)], "seen": True, "backend": "torch", "many": Many(engine="here")}
    predict(patients, **asked)
    assert not list(tmp_path.glob(f"*/*/{CHANCES}"))
    before = sorted((tmp_path / "drawer" / "confidence.csv").read_text(encoding="utf-8").splitlines())
    predict(patients, **asked, chances=True)
    assert len(list(tmp_path.glob(f"*/*/{CHANCES}"))) == 3
    assert sorted((tmp_path / "drawer" / "confidence.csv").read_text(encoding="utf-8").splitlines()) == before
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    predict(patients, **asked, chances=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == times


def test_chances_are_bytes(claims, patients, tmp_path):
    cohort = Cohort.open(patients)
    case = cohort[cohort.ids[0]]
    write_layout(case, tmp_path / "x" / case.id)
    write_probabilities({"Parotid_L": Volume(np.full((2, 3, 4), 256, np.int16), Geometry.regular((2, 3, 4)))}, tmp_path / "x" / case.id)
    with pytest.raises(FormatError, match="whole numbers from 0 to 255, not int16 from 256 to 256") as error:
        probabilities_about(case, sources([tmp_path]))
    assert "Parotid_L" in str(error.value)
    write_probabilities({"Parotid_L": Volume(np.full((2, 3, 4), 0.9, np.float32), Geometry.regular((2, 3, 4)))}, tmp_path / "x" / case.id)
    with pytest.raises(FormatError, match=r"not float32 from 0\.9 to 0\.9"):
        probabilities_about(case, sources([tmp_path]))
    assert not next(iter(with_candidates([case], [tmp_path]))).candidates["x"].probabilities, "nobody asked for them"


def test_chances_are_called_as_masks_are(patients, tmp_path):
    """Two names that no two files can have, and one that TG-263 has another word for."""
    cohort, grid = Cohort.open(patients), Geometry.regular((2, 3, 4))
    case = cohort[cohort.ids[0]]
    names = {"Left parotid": 1, "A/B": 2, "A_B": 3}
    masks = {name: Volume((np.arange(24) < n).reshape(2, 3, 4), grid) for name, n in names.items()}
    write_layout(Case(case.id, masks=masks), tmp_path / "x" / case.id)
    write_probabilities({name: Volume(np.full((2, 3, 4), n, np.uint8), grid) for name, n in names.items()}, tmp_path / "x" / case.id)
    theirs = sources([tmp_path])
    drawn, kept = theirs["x"][case.id].masks, probabilities_about(case, theirs)["x"]
    called = {"Parotid_L": 1, "A_B^2": 2, "A_B": 3}
    assert {name: int(volume.array.sum()) for name, volume in drawn.items()} == called
    assert {name: int(volume.array.max()) for name, volume in kept.items()} == called


def test_only_masks_with_their_drawer_s_chances_are_learned_from_and_seen_beside_the_mask(task, patients, claims):
    cohort = Cohort.open(patients)
    case = next(iter(with_candidates([cohort[cohort.ids[0]]], [claims], probabilities=True)))
    samples = task.samples(case)
    assert {c.family for c in samples} == {SEGMENTER}
    thought = case.candidates["drawer"].probabilities
    for claim in samples:
        draw = task.plan([claim], np.random.default_rng(0), train=False)[0]
        image = task.item([claim], draw)["image"].numpy()
        whole = thought[task.settings.structures[claim.structure]].to(task.settings.working_grid(case.geometry)).array[int(draw.centre[0])]
        corner = [int(np.floor(c - 15.5 + 0.5)) for c in draw.centre[1:]]
        padded = np.pad(whole, 40)[corner[0] + 40 : corner[0] + 72, corner[1] + 40 : corner[1] + 72].astype(np.float32)
        assert image.shape[0] == task.settings.channels == 10
        assert np.abs(image[7] * 255 - padded * (padded > UNLIKELY)).max() <= UNLIKELY
    with pytest.raises(TrainingError, match="no candidate contour comes with the probability map of the model that drew it"):
        task.samples(cohort[cohort.ids[0]])


def test_opinion_and_own_chances_stand_side_by_side(drawer, patients, claims):
    cohort = Cohort.open(patients)
    case = cohort[cohort.ids[0]]
    torch.manual_seed(0)
    both = AssessTask(AssessSettings(NAMES, own=True, opinion=str(drawer), variants=0, generated=0.0, **SMALL)).eval()
    assert both.settings.channels == 13
    claim = both.samples(next(iter(with_candidates([case], [claims], probabilities=True))))[0]
    image = both.item([claim], both.plan([claim], np.random.default_rng(0), train=False)[0])["image"].numpy()
    assert image[6:9].any()
    assert np.abs(image[6:9] - image[9:12]).max() <= 1 / 255, "the model that drew is the model that was asked"


def test_a_run_shows_the_quality_model_how_sure_the_drawer_was(task, drawer, case):
    assessor = Assessor(task, "torch", 1, use_detector=False)
    found = drawn_by(drawer, case)
    scored, models = scoring.score(found, assessor)
    rated = scored.assessment.structures
    drawn = [n for n in NAMES if found.masks[n].array.any()]
    assert drawn
    assert all(rated[n].scored for n in drawn)
    assert models[0]["notes"] == []
    surer = {n: chances.map(lambda c: np.where(c >= 128, 255, 0).astype(np.uint8)) for n, chances in found.probabilities.items()}
    assert scoring.score(replace(found, probabilities=surer), assessor)[0].assessment.structures != rated
    assert not judge(found, assessor, [])[0].probabilities


def test_a_model_that_must_have_probability_maps_scores_nothing_without(task, case):
    assessor = Assessor(task, "torch", 1, use_detector=False)
    theirs = case.without_structures().with_masks({n: case.mask(n) for n in NAMES})
    alone = assessor.predict(theirs).assessment.structures
    assert {one.why for one in alone.values()} == {NO_MAP}
    assert not any(one.scored for one in scoring.score(theirs, assessor)[0].assessment.structures.values())


def test_what_the_model_never_saw_in_training_is_not_scored(task, drawer, case):
    some = deepcopy(task)
    some.detector.limit[:] = 1e9
    some.detector.limit[some.settings.structures.index("Parotid_R")] = 0
    found = drawn_by(drawer, case)
    found = replace(found, masks={name: case.mask(name) for name in NAMES})
    scored, _ = scoring.score(found, Assessor(some, "torch", 1, use_detector=False))
    rated = scored.assessment.structures
    assert rated["Parotid_R"].why == f"The quality model {some.card().name} never saw Parotid_R in training."
    assert {s.dsc for s in rated["Parotid_R"].slices} == {None}
    assert "Parotid_R" not in scored.assessment.error_maps
    assert rated["Parotid_L"].scored
    assert f"not scored: Parotid_R: The quality model {some.card().name} never saw Parotid_R in training." in report.summary(scored)


@pytest.mark.parametrize(
    ("drew", "told", "inputs"), [(False, True, "both"), (False, False, "reference"), (True, True, "own"), (True, False, "mask")]
)
def test_optional_maps_are_used_where_they_are_and_what_was_given_is_told(drew, told, inputs, optional, drawer, case, monkeypatch):
    """The reference model's map of its own work is never shown; the page's record says what the net saw."""
    monkeypatch.setattr(ReferenceProbabilities, "of_one_hand", lambda *_: drew)
    found = case.without_structures().with_masks({n: case.mask(n) for n in NAMES})
    if told:
        found = replace(drawn_by(drawer, case), segmented_by=None)  # as if nobody knew who drew
        found = replace(found, masks={n: case.mask(n) for n in NAMES})
    scored, models = scoring.score(found, optional)
    rated = scored.assessment.structures
    assert {one.inputs for one in rated.values()} == {inputs}
    assert all(one.scored for one in rated.values())
    assert (scored.assessment.reference is not None) == (inputs in ("reference", "both"))
    assert models[0]["notes"] == []
    assert {s["inputs"] for s in assess_record(scored)["structures"].values()} == {inputs}


def test_where_the_reference_model_is_known_to_have_drawn_it_is_not_asked(optional, drawer, case, monkeypatch):
    found = drawn_by(drawer, case)
    assert found.segmented_by == (load_contourer(drawer).card.sha256,)
    monkeypatch.setattr(Contourer, "reference", lambda *_: pytest.fail("it costs as much as contouring anew"))
    rated = optional.predict(found).assessment.structures
    assert {one.inputs for one in rated.values() if one.scored} == {"own"}


def test_a_hidden_map_looks_like_none_and_the_net_is_told_so(optional, claims, patients):
    """Three facts more than without optional maps: the size of a pixel and what is given."""
    s = optional.task.settings
    assert (s.facts, s.needs_own) == (5, False)
    known = Cohort.open(patients)[Cohort.open(patients).ids[0]]
    samples = optional.task.samples(next(iter(with_candidates([known], [claims], probabilities=True))))
    sample = next(one for one in samples if one.family == SEGMENTER)
    draw = optional.task.plan([sample], np.random.default_rng(0), train=False)[0]
    for given in GIVEN.values():
        image = optional.task.item([sample], draw, given)["image"].numpy()
        assert (bool(image[6:9].any()), bool(image[9:12].any())) == given
        assert tuple(image[-1, 0, 4:6]) == tuple(map(float, given))
    seen = {tuple(optional.task.item([sample], replace(draw, seed=n))["image"].numpy()[-1, 0, 4:6]) for n in range(40)}
    assert len(seen) == 4, "every set of maps comes in training"


def test_wrong_area_is_what_lies_in_one_of_the_two(optional, claims, patients):
    """Against a count by hand on the slice that was drawn, in cm²."""
    known = Cohort.open(patients)[Cohort.open(patients).ids[0]]
    samples = optional.task.samples(next(iter(with_candidates([known], [claims], probabilities=True))))
    sample = next(one for one in samples if one.family == SEGMENTER)
    draw = optional.task.plan([sample], np.random.default_rng(0), train=False)[0]
    item, grid = optional.task.item([sample], draw), optional.task.settings.working_grid(known.geometry)
    k, name = int(draw.centre[0]), optional.task.settings.structures[sample.structure]
    drawn = next(iter(with_candidates([known], [claims], probabilities=True))).candidates["drawer"].masks[name]
    apart = np.pad(drawn.binary().to(grid).array[k] ^ known.mask(name, grid).array[k], 40)
    j, i = (int(np.floor(c - 15.5 + 0.5)) + 40 for c in draw.centre[1:])
    seen = apart[j : j + 32, i : i + 32].sum()
    assert seen
    assert float(item["area"]) == pytest.approx(seen * grid.spacing_mm[1] * grid.spacing_mm[2] / 100, rel=1e-6)


def test_a_model_that_must_have_a_reference_does_not_score_what_that_drew(drawer, case, monkeypatch):
    theirs = Assessor(AssessTask(AssessSettings(NAMES, own=True, opinion=str(drawer), **SMALL)).eval(), "torch", 1, use_detector=False)
    found = drawn_by(drawer, case)
    assert found.segmented_by == (load_contourer(drawer).card.sha256,), "it is known who drew, however it looks"
    assert scoring.score(found, theirs)[0].assessment.refused == "contour drew these contours itself, so it cannot be their reference."
    monkeypatch.setattr(ReferenceProbabilities, "of_one_hand", lambda *_: True)
    by_another = replace(found, segmented_by=("0" * 64,))
    assert theirs.predict(by_another).assessment.refused is None, "much alike, and known to be drawn by another"


def test_a_clinic_calibrates_on_what_will_be_scored_alone(task, optional, drawer, case, monkeypatch):
    """Neither on a structure that nothing taught the model, nor on what the model drew that it asks."""
    found = drawn_by(drawer, case)
    claims, chances = {"x": {n: case.mask(n) for n in NAMES}}, {"x": found.probabilities}
    some = deepcopy(task)
    some.detector.limit[:] = 1e9
    some.detector.limit[some.settings.structures.index("Parotid_R")] = 0
    for as_predict, names in ((False, set(NAMES)), (True, set(NAMES) - {"Parotid_R"})):
        seen = Observed()
        observe(Assessor(some, "torch", 1), case, claims, seen, chances, as_predict=as_predict)
        assert {s.structure for s in seen.scored()} == names
    monkeypatch.setattr(ReferenceProbabilities, "of_one_hand", lambda *_: True)
    both = Assessor(AssessTask(AssessSettings(NAMES, own=True, opinion=str(drawer), **SMALL)).eval(), "torch", 1, use_detector=False)
    for as_predict in (False, True):
        seen = Observed()
        observe(both, case, claims, seen, chances, as_predict=as_predict)
        assert (seen.own_work == [(case.id, "x")], bool(seen.scored())) == (as_predict, not as_predict)
        seen = Observed()
        observe(optional, case, claims, seen, chances, as_predict=as_predict)
        assert {s.inputs for s in seen.scored()} == {"own" if as_predict else "both"}, "as predict would, without the reference"
    seen = Observed()
    observe(optional, case, claims, seen, chances, as_predict=True, drawn_by={"x": ("0" * 64,)})
    assert {s.inputs for s in seen.scored()} == {"both"}, "much alike, and known to be drawn by another, as in a run"
    monkeypatch.setattr(ReferenceProbabilities, "of_one_hand", lambda *_: False)
    seen = Observed()
    observe(optional, case, claims, seen, chances, as_predict=True, drawn_by={"x": found.segmented_by})
    assert {s.inputs for s in seen.scored()} == {"own"}, "hardly alike, and known to be its own"


def test_two_contourers_of_one_file_name_are_two_sources(optional, patients, drawer, tmp_path):
    other = tmp_path / drawer.name
    torch.manual_seed(5)
    save_model(ContourTask(load_contourer(drawer).task.settings), other)
    seen, _ = observe_cohort(optional, Cohort.open(patients), [], [str(drawer), str(other)])
    assert {key[1] for key in seen.features} == {str(drawer), str(other)}
    assert {s.inputs for s in seen.scored() if s.source == str(drawer)} == {"own"}, "the reference model itself, by its hash"


@pytest.fixture
def optional(drawer):
    """An untrained net that takes the probability maps that there are."""
    torch.manual_seed(0)
    heads = ("dsc", "class", "errors", "surface", "present", "area", "surface_high")
    settings = AssessSettings(NAMES, own=True, opinion=str(drawer), channel_dropout=0.4, heads=heads, **SMALL)
    return Assessor(AssessTask(settings).eval(), "torch", 1, use_detector=False)


def test_calibrating_takes_masks_with_chances_alone(task, patients, claims, drawer, tmp_path):
    assessor = Assessor(task, "torch", 1, use_detector=False)
    cohort = Cohort.open(patients)
    kept, _ = observe_cohort(assessor, cohort, [claims], [])
    fresh, _ = observe_cohort(assessor, cohort, [], [str(drawer)])
    assert {s.patient for s in kept.scored()} == {s.patient for s in fresh.scored()} == set(cohort.ids)
    for id in cohort.ids:
        write_layout(replace(cohort[id], images={}), tmp_path / "theirs" / id)
    mixed, _ = observe_cohort(assessor, cohort, [claims, tmp_path], [])
    assert {s.source for s in mixed.scored()} == {"drawer"}
    assert len(mixed.scored()) == len(kept.scored())


def test_where_the_line_is_drawn_the_chances_are_one_half():
    """Odds divided by those of the threshold 0.2, which are 1/4: 0.2 becomes 0.5, 0.5 becomes 0.8, none and all stay."""
    chances = Volume(np.array([0, 51, 127.5, 255], np.uint8).reshape(1, 1, 2, 2).repeat(2, 0), Geometry.regular((1, 2, 2)))
    same, centred = by_structure(chances, ("A", "B"), (0.5, 0.2)).values()
    assert same.array.tolist() == chances.array[0].tolist()
    assert centred.array.ravel().tolist() == pytest.approx([0, 127.5, 0.8 * 255, 255], abs=1)


def test_what_is_kept_of_a_model_with_thresholds_of_its_own_fits_what_it_drew(case, drawer):
    contourer = keeping_probabilities(load_contourer(drawer, backend="torch", rules=Tidy.off(), threads=1))
    raw = contourer.reference(case)
    middle = [float(np.clip(np.median(raw.of(n).array) / 255, 0.05, 0.95)) for n in NAMES]
    contourer.task.settings = replace(contourer.task.settings, threshold=tuple(middle))
    found = contourer.predict(Case("p", {"ct": case.ct.to(raw.probabilities.geometry)}))
    for n in NAMES:
        inside = found.masks[n].array
        assert inside.any()
        assert found.probabilities[n].array[inside].min() >= 126


def test_how_chances_were_read_is_told(patients, tmp_path):
    """Lengths in cm: 0.3 x 0.2 x 0.1 are 3 x 2 x 1 mm."""
    case = Cohort.open(patients)[Cohort.open(patients).ids[0]]
    write_layout(case, tmp_path / "x" / case.id)
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\nencoding: raw\n"
        'space directions: (0.1,0,0) (0,0.2,0) (0,0,0.3)\nspace units: "cm" "cm" "cm"\nspace origin: (0,0,0)\n\n'
    )
    (tmp_path / "x" / case.id / "chances").mkdir()
    (tmp_path / "x" / case.id / "chances/Parotid_L.nrrd").write_bytes(header.encode() + bytes(24))
    found = next(iter(with_candidates([case], [tmp_path], probabilities=True)))
    assert np.allclose(found.candidates["x"].probabilities["Parotid_L"].geometry.spacing_mm, (3, 2, 1))
    said = "probabilities of x: Parotid_L.nrrd: lengths are told in cm (space units) and were turned into mm"
    assert found.facts["notes"].count(said) == 1


def test_claims_on_other_voxels_are_refused(patients, tmp_path):
    case = Cohort.open(patients)[Cohort.open(patients).ids[0]]
    x, y, z = case.geometry.origin_mm
    aside = Geometry.regular(case.geometry.shape, case.geometry.spacing_mm, (x + 12, y, z), case.geometry.axes)
    mask = Volume(case.mask("Parotid_L").array, aside)
    write_layout(Case(case.id, masks={"Parotid_L": mask}), tmp_path / "x" / case.id)
    with pytest.raises(GeometryError, match="voxels lie up to 12 mm apart"):
        contours_about(case, sources([tmp_path]))

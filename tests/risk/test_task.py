"""The risk task: what is unknown teaches nothing, contrast by pencil, and every unusable dose in a sentence."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from oncontour.commands.train import learned_from
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.notes import Note, NoteCode
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.errors import ConfigError, DoseError, InputError, ModelError
from oncontour.learn.fit import fit, held_back
from oncontour.learn.task import Draw, load_task, save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.metrics.classify import auc
from oncontour.metrics.probability import Recalibration
from oncontour.phantom import head_neck
from oncontour.report import risk as page
from oncontour.report.tripod import tripod
from oncontour.risk.contrastive import by_outcome, by_patient
from oncontour.risk.feature_selection import Selection
from oncontour.risk.inputs import around, patient_of
from oncontour.risk.predict import RiskPredictor, interval
from oncontour.risk.task import RiskSettings, RiskTask, outcome_loss, prepared, region_loss

NET = {"widths": (4, 8, 8, 8), "embedding": 8}
SETTINGS = RiskSettings(("a", "b"), net_options=NET, window=(8, 16, 16), dosiomics=False, members=1)


@pytest.fixture(scope="module")
def case():
    made = head_neck(0, (5, 4, 4), 1.0, (40, 48, 48))
    return replace(made, facts={**made.facts, "outcomes": {"a": True, "b": False}})


def batch(task, patients):
    samples = [task.sample(p) for p in patients]
    return torch.utils.data.default_collate([task.item(samples, Draw(n, (0, 0, 0), None)) for n in range(len(samples))])


# ---- what is not known


def test_an_outcome_that_nobody_knows_does_not_change_the_loss(case):
    """Of the second patient b is not known: whatever stands there, loss and gradients are the same; told as "no" they are not."""
    task = RiskTask(replace(SETTINGS, contrast="both")).eval()
    first, second = patient_of(case, SETTINGS.view), patient_of(replace(case, id="q"), SETTINGS.view)
    second = replace(second, outcomes={"a": False})
    told = batch(task, [first, second])
    assert told["known"].tolist() == [[1, 1], [1, 0]]
    losses = []
    for value in (0.0, 1.0):
        told["outcome"][1, 1] = value
        loss, _ = task.loss(told)
        task.zero_grad()
        loss.backward()
        losses.append((float(loss.detach()), [p.grad.clone() for p in task.net.parameters() if p.grad is not None]))
    assert losses[0][0] == losses[1][0]
    assert all(torch.equal(a, b) for a, b in zip(losses[0][1], losses[1][1], strict=True))
    as_negative = batch(task, [first, replace(second, outcomes={"a": False, "b": False})])
    assert float(task.loss(as_negative)[0]) != losses[0][0]


def test_an_organ_that_nobody_contoured_is_no_empty_organ(case):
    """Its map's loss is that of the others alone."""
    bare = Case("bare", case.images, {name: case.masks[name] for name in case.masks if name != "Esophagus"}, facts=case.facts)
    missing = patient_of(bare, SETTINGS.view)
    assert missing.region is None
    assert missing.notes == ("Esophagus is not contoured",)
    logits, truth = torch.randn(2, 1, 2, 4, 4), (torch.rand(2, 1, 2, 4, 4) > 0.5).float()
    alone = region_loss(logits[:1], truth[:1], torch.ones(1, 1))
    both = region_loss(logits, truth, torch.tensor([[1.0], [0.0]]))
    assert both.item() == pytest.approx(alone.item(), abs=1e-6)
    assert region_loss(logits, truth, torch.zeros(2, 1)).item() == 0
    task = RiskTask(SETTINGS)
    assert batch(task, [patient_of(case, SETTINGS.view), missing])["region_known"].tolist() == [[1], [0]]


def test_a_patient_without_any_known_outcome_is_no_sample(case):
    task = RiskTask(SETTINGS)
    assert task.samples(replace(case, facts={"outcomes": {}})) == []
    assert task.samples(replace(case, facts={"outcomes": {"b": True}}))[0].outcomes == pytest.approx([np.nan, 1], nan_ok=True)


# ---- losses by pencil


def test_outcome_loss_by_pencil():
    logits, y = torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    known = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert outcome_loss(logits, y, known).item() == pytest.approx((np.log(2) + np.log(1 + np.exp(-1))) / 2, abs=1e-6)
    assert outcome_loss(logits, y, torch.zeros(2, 2)).item() == 0
    focal = outcome_loss(logits[:1, :1], y[:1, :1], torch.ones(1, 1), focal=2.0).item()
    assert focal == pytest.approx(0.25 * np.log(2), abs=1e-6), "(1 - 1/2)^2 log 2"


def test_contrast_by_outcome_by_pencil():
    """Vectors along x, x, y; the first two had it. Similarities / 0.5: 2 with the twin, 0 with the other; the third has no positive."""
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    had, known = torch.tensor([[1.0], [1.0], [0.0]]), torch.ones(3, 1)
    each = -np.log(np.exp(2) / (np.exp(2) + 1))
    assert by_outcome(z, had, known, 0.5).item() == pytest.approx(each, abs=1e-6)
    assert by_outcome(z, had, torch.tensor([[1.0], [1.0], [0.0]]), 0.5).item() == pytest.approx(0, abs=1e-6), (
        "the third is not even a negative"
    )
    assert by_outcome(z, had, torch.tensor([[1.0], [0.0], [1.0]]), 0.5).item() == 0, "nobody has a positive"
    spread = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert by_outcome(spread, had, known, 0.5) > by_outcome(z, had, known, 0.5)


def test_contrast_between_image_and_dosiomics_by_pencil():
    """Two patients, each like its own dosiomics: log(1 + e^-2) at temperature 0.5, the same both ways; exchanged it is log(1 + e^2)."""
    z = torch.eye(2)
    assert by_patient(z, z, 0.5).item() == pytest.approx(np.log(1 + np.exp(-2)), abs=1e-6)
    assert by_patient(z, z.flip(0), 0.5).item() == pytest.approx(np.log(1 + np.exp(2)), abs=1e-6)
    assert by_patient(z[:1], z[:1], 0.5).item() == 0


def test_a_patient_without_dosiomics_takes_no_part_in_their_contrast(case):
    """An organ that is not contoured has no features: as average ones they would be drawn to the image, and pushed from others'."""
    z = torch.nn.functional.normalize(torch.randn(4, 3), dim=1)
    known = torch.tensor([1.0, 1.0, 0.0, 1.0])
    kept = [0, 1, 3]
    assert by_patient(z, z.flip(0), 0.5, known).item() == pytest.approx(by_patient(z[kept], z.flip(0)[kept], 0.5).item())
    assert by_patient(z, z, 0.5, torch.tensor([0.0, 1.0, 0.0, 0.0])).item() == 0
    task = RiskTask(replace(SETTINGS, features=("x",), feature_centre=(0.0,), feature_scale=(1.0,)))
    one = patient_of(case, SETTINGS.view)
    told = batch(task, [replace(one, features={"x": 1.0}), replace(one, features={})])
    assert told["features_known"].tolist() == [1, 0]


def test_each_contrast_is_selectable(case):
    patients = [replace(patient_of(case, SETTINGS.view), features={"x": float(n)}, outcomes={"a": n % 2 == 0}) for n in range(4)]
    for contrast, wanted in (("none", set()), ("outcome", {"contrast"}), ("modal", {"modal"}), ("both", {"contrast", "modal"})):
        settings = replace(SETTINGS, contrast=contrast, features=("x",), feature_centre=(0.0,), feature_scale=(1.0,))
        task = RiskTask(settings)
        _, figures = task.loss(batch(task, patients))
        assert set(figures) - {"outcome", "region"} == wanted


# ---- windows


def test_the_window_holds_dose_and_organ(case):
    view = replace(SETTINGS, structure="Larynx", shift=0, spacing_mm=(5.0, 4.0, 4.0), window=(40, 32, 32)).view
    patient = patient_of(case, view)
    inside = patient.image[1].astype(np.float64)
    organ = dvh(case.images["dose"], case.mask("Larynx"))
    assert inside.sum() * patient.grid.voxel_mm3 / 1000 == pytest.approx(organ.volume_cc, rel=0.02)
    assert 80 * (patient.image[0] * inside).sum() / inside.sum() == pytest.approx(organ.mean_gy, rel=0.03)
    assert patient.features["Dmean"] == pytest.approx(organ.mean_gy, rel=0.01)
    assert patient.features["stat_mean"] == pytest.approx(organ.mean_gy, rel=0.05)


def test_regions_to_be_found(case):
    isodose = patient_of(case, replace(SETTINGS, region="isodose", isodose_gy=30.0).view, features=False)
    assert ((isodose.region > 0.5) == (isodose.image[0].astype(np.float32) * 80 >= 30)).mean() > 0.99
    ring = patient_of(case, replace(SETTINGS, region="ring", window=(40, 32, 32)).view, features=False)
    inside = case.mask("PTV_7000", ring.grid).array
    assert ring.region.any()
    assert not (ring.region[inside] > 0).any()
    without = case.without_structures().with_masks({"Esophagus": case.mask("Esophagus")})
    assert patient_of(without, replace(SETTINGS, region="ring").view, features=False).region is None, "no target: not known"
    with_ct = patient_of(case, replace(SETTINGS, ct=True).view, features=False)
    assert with_ct.image.shape[0] == 3


def test_cutting_a_case_first_changes_nothing_that_is_seen(case):
    view = SETTINGS.view
    whole, cut = patient_of(case, view), patient_of(around(case, view), view)
    assert np.abs(whole.image.astype(np.float32) - cut.image.astype(np.float32)).max() < 2e-3
    assert cut.features == pytest.approx(whole.features, rel=1e-3, nan_ok=True)


def test_training_windows_move_and_plain_ones_do_not(case):
    task = RiskTask(SETTINGS)
    samples = task.samples(case)
    plain = task.item(samples, Draw(0, (0, 0, 0), None))["image"]
    assert torch.equal(plain, task.item(samples, Draw(0, (0, 0, 0), None))["image"])
    moved = [task.item(samples, Draw(0, (0, 0, 0), seed))["image"] for seed in range(4)]
    assert any(not torch.allclose(plain[1], one[1]) for one in moved)


# ---- what cannot be used, each in a sentence


def changed(case, array=None, **kw):
    dose = case.images["dose"]
    grid = kw.get("grid", dose.geometry)
    return case.with_images({"dose": Volume(dose.array if array is None else array, grid)})


def with_nan(dose):
    out = dose.array.copy()
    out[:] = np.nan
    return out


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda c: changed(c, with_nan(c.images["dose"])), "NaN|not finite|not a number"),
        (lambda c: changed(c, -1 - c.images["dose"].array), "negative|below 0"),
        (lambda c: changed(c, 100 * c.images["dose"].array), "centigray"),
        (lambda c: changed(c, 0 * c.images["dose"].array), "0 everywhere"),
        (lambda c: Case(c.id, {"ct": c.images["ct"]}, c.masks), "no dose to use"),
    ],
)
def test_a_dose_that_cannot_be_used(case, spoil, says):
    with pytest.raises(DoseError, match=says):
        patient_of(spoil(case), SETTINGS.view)


def test_a_dose_of_another_place_and_one_that_the_reader_refused(case):
    grid = case.images["dose"].geometry
    away = Geometry.regular(grid.shape, grid.spacing_mm, np.asarray(grid.origin_mm) + 1000)
    with pytest.raises(DoseError, match=r"outside the dose grid, all of its .* one patient and one frame of reference"):
        patient_of(changed(case, grid=away), SETTINGS.view)
    said = ("what the dose is called decides nothing", Note(NoteCode.DOSE_LEFT_OUT, "1 RTDOSE of another frame of reference was left out"))
    bare = Case("p", {"ct": case.images["ct"]}, case.masks, facts={"notes": said})
    with pytest.raises(DoseError, match=r"^no dose to use: 1 RTDOSE of another frame of reference was left out \["):
        patient_of(bare, SETTINGS.view)


def test_predicting_asks_for_the_organ(case):
    task = RiskTask(SETTINGS)
    with pytest.raises(InputError, match="looks at Esophagus, which is not contoured"):
        RiskPredictor(task).predict(case.without_structures().with_masks({"Larynx": case.mask("Larynx")}))


def test_settings_that_cannot_be(case):
    with pytest.raises(ConfigError, match="needs a toxicity"):
        RiskTask(RiskSettings())
    with pytest.raises(ConfigError, match=r"not \[8, 16\] of"):
        replace(SETTINGS, window=(8, 16))
    with pytest.raises(ConfigError, match=r"multiples of 8 fit, not \[9, 15, 16\]. Way out: take \[9, 16, 16\]"):
        RiskTask(replace(SETTINGS, window=(9, 15, 16)))
    with pytest.raises(ConfigError, match=r"take \[16, 16, 16\]"):
        RiskTask(replace(SETTINGS, window=(9, 16, 16), net_options={**NET, "kind": "3d"}))
    with pytest.raises(ConfigError, match="0 or more"):
        replace(SETTINGS, region_weight=-1.0)
    with pytest.raises(ConfigError, match="differ"):
        RiskSettings(("a", "a"))
    with pytest.raises(ModelError, match="does not take these options"):
        RiskTask(RiskSettings(("a",), net="unet3d"))
    one = patient_of(case, SETTINGS.view)
    other = replace(one, outcomes={"a": False, "b": True})
    with pytest.raises(ConfigError, match="not known of anybody"):
        prepared(replace(SETTINGS, facts=("age_at_diagnosis",)), [one, other])
    with pytest.raises(ConfigError, match="a: 2 of the 2 training patients of whom it is known had it, which teaches nothing"):
        prepared(SETTINGS, [one, one])


# ---- learning, answering


def made_up(case, n, seed=0):
    """``n`` patients whose risk is whether the dose to the left of the organ exceeds that to its right; four of each original."""
    rng = np.random.default_rng(seed)
    plain = patient_of(case, SETTINGS.view, features=False)
    across = np.linspace(-1, 1, plain.image.shape[-1], dtype=np.float32)
    out = []
    for number in range(n):
        slope = float(rng.normal())
        image = plain.image.copy()
        image[0] = (0.5 + 0.25 * slope * across + 0.05 * float(rng.normal())) * np.ones_like(plain.image[0])
        features = {"noise": float(rng.normal()), "level": float(rng.normal()), "never": float("nan")}
        had = bool(rng.random() < 1 / (1 + np.exp(-4 * slope)))
        out.append(
            replace(plain, id=f"v{number}", original=f"p{number // 4}", image=image, features=features, outcomes={"a": had, "b": not had})
        )
    return out


@pytest.fixture(scope="module")
def learned(case, tmp_path_factory):
    patients = made_up(case, 96)
    settings = replace(SETTINGS, dosiomics=True, members=2, simulated=True)
    task = RiskTask(prepared(settings, patients, Selection(count=2)))
    recipe = TrainSettings(epochs=16, batch=16, learning_rate=1e-2, validation=0.25, threads=1)
    return fit(task, patients, tmp_path_factory.mktemp("risk"), recipe, name="left", finish=RiskTask.finish), patients


def test_it_learns_what_no_dvh_sees_and_keeps_it_in_its_file(case, learned, tmp_path):
    outcome, patients = learned
    loaded = load_task(outcome.model)
    new = made_up(case, 64, seed=9)
    samples = [loaded.sample(p) for p in new]
    p = loaded.probabilities(samples)
    assert auc(p[:, 0], [one.outcomes["a"] for one in new]) > 0.85
    assert auc(p[:, 1], [one.outcomes["b"] for one in new]) > 0.85, "the second toxicity has its own head"
    assert loaded.settings.features in (("noise", "level"), ("level", "noise"))
    told = outcome.card.made["risk"]["toxicities"]["a"]
    assert 0 < told["threshold"] < 1
    assert told["recalibration"]["patients"] in (0, 24)
    held, trained = set(outcome.card.made["held_back_patients"]), set(outcome.card.made["trained_on"])
    assert not held & trained
    assert held | trained == {p.original for p in patients}, "virtual patients of one original stay together"
    save_model(loaded, tmp_path / "again.safetensors", half=False)
    assert load_task(tmp_path / "again.safetensors").probabilities(samples) == pytest.approx(p, abs=1e-6)


def test_the_answer_and_where_it_comes_from(case, learned):
    task = load_task(learned[0].model)
    case = replace(case, facts={**case.facts, "original": "x"})
    answer = RiskPredictor(task).predict(case)
    told = answer.risk
    one = told.toxicities["a"]
    assert one.low <= one.probability <= one.high
    assert len(one.members) == 2
    assert one.flagged == (one.probability >= one.threshold)
    assert told.simulated
    assert "esophagitis-g2-zehentmayr-2015" in told.reference
    assert set(told.features.values()) == {None}
    assert sum("is not defined here (NaN)" in note for note in told.notes) == 2
    assert told.sensitivity.geometry.shape == (8, 16, 16)
    words = page.text(answer)
    assert words.startswith("SIMULATED OUTCOMES")
    assert "Published models beside it" in words
    assert any("SIMULATED" in text.get_text() for text in page.draw(answer).findobj(Text)), "the figure says so itself"
    assert page.svg(answer).startswith("<svg")


def test_the_map_is_the_slope_of_the_risk(case, learned):
    """One Gy more in a part of the window changes the log odds by the map's sum there (to first order)."""
    task = load_task(learned[0].model)
    slope = RiskPredictor(task).predict(case).risk.sensitivity
    patient = patient_of(case, task.settings.view, strict=True)
    more = patient.image.astype(np.float32).copy()
    where = (slice(2, 8), slice(4, 12), slice(4, 12))
    more[(0, *where)] += 0.1 / 80
    samples = [task.sample(patient), task.sample(replace(patient, image=more))]
    items = [task.item(samples, Draw(n, (0, 0, 0), None)) for n in range(2)]
    logits = []
    for item in items:
        with torch.no_grad():
            x, f, m = (item[name][None] for name in ("image", "features", "facts"))
            logits.append(np.mean([float(member.fuse(x, f, m).risk[0, 0]) for member in task.net]))
    inner = slope.array[1:7, 3:11, 3:11].sum()  # the window lies one voxel of margin inside
    assert logits[1] - logits[0] == pytest.approx(0.1 * inner, rel=0.15, abs=2e-4)


def test_the_interval_is_student_s_on_the_log_odds():
    low, high = interval(np.array([0.5, 0.5, 0.5]), Recalibration())
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))
    low, high = interval(1 / (1 + np.exp(-np.array([-1.0, 1.0]))), Recalibration())
    assert np.log(high / (1 - high)) == pytest.approx(6.314, abs=0.01), "t of one degree of freedom, SD / sqrt(n) = 1"
    assert interval(np.array([0.3]), Recalibration()) == (None, None)


def test_the_tripod_report_says_what_it_is(learned):
    outcome, patients = learned
    text = tripod(outcome.card, patients)
    assert text.startswith("# Simulated outcomes: risk model left")
    assert "96 patients of 24 originals" in text
    assert "| 14 Fairness | Not answered by the model itself. |" in text
    assert f"a: {sum(p.outcomes['a'] for p in patients)} events among 96" in text
    items = [line.split("|")[1].split()[0] for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert items == [str(n) for n in range(1, 28)], "every item, answered or not"
    again = outcome.card.made["risk"]["toxicities"]["a"]["recalibration"]
    assert f"a: log odds x {again['slope']:.3f} {again['intercept']:+.3f}, by {again['patients']} patients held back" in text
    assert "6 originals held back to watch the loss and recalibrate" in text
    assert "| 23 Model performance | AUC 0.8 |" in tripod(outcome.card, patients, "AUC 0.8")


def test_held_back_patients_choose_nothing(case):
    """Features are chosen, and all is standardised, by those whom the net learns from: the held-back ones' numbers do not matter."""
    patients = made_up(case, 40)
    recipe = TrainSettings(epochs=1, batch=16, validation=0.25)
    learned = learned_from(patients, ("a",), recipe)
    held = {p.original for p in patients} - {p.original for p in learned}
    assert len(held) == round(0.25 * 10)
    assert held == held_back([p.original for p in patients], recipe)
    unknown = replace(patients[0], id="new", original="new", outcomes={})
    assert learned_from([*patients, unknown], ("a",), recipe) == learned
    settings = replace(SETTINGS, toxicities=("a",), dosiomics=True)
    spoiled = [replace(p, features={**p.features, "noise": 1e6}) if p.original in held else p for p in patients]
    assert prepared(settings, learned_from(spoiled, ("a",), recipe)) == prepared(settings, learned)

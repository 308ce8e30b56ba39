"""Contouring: where the answer lies, whatever the grid; what is learned from; what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from oncontour.commands import run as pipeline
from oncontour.contour.inputs import ContourSettings
from oncontour.contour.predict import Contourer, load_contourer
from oncontour.contour.task import Clash, ContourTask, clash, soft_dice
from oncontour.contour.thresholds import finish
from oncontour.core.case import BitMasks, Case, LabelMasks
from oncontour.core.contours import Contours
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.dose.dvh import dvh
from oncontour.errors import ConfigError, ModelError, TrainingError
from oncontour.io import read
from oncontour.learn.card import find, read_card
from oncontour.learn.fit import fit
from oncontour.learn.task import Draw, save_model
from oncontour.learn.train_settings import TrainSettings
from oncontour.ops.augment import Ranges, mirrored
from oncontour.ops.tidy import Tidy
from oncontour.phantom import head_neck
from tests.phantoms import patient

SETTINGS = ContourSettings(
    structures=("Bone_Mandible", "Brainstem"),
    net_options={"widths": (4, 8)},
    spacing_mm=(6.0, 5.0, 5.0),
    window=(16, 24, 24),
    mask_body=False,
)
FLAT = ContourSettings(
    structures=("Bone_Mandible",), net="unet", net_options={"base": 4, "levels": 3}, spacing_mm=(6, 5, 5), window=(1, 24, 24), neighbours=1
)


@pytest.fixture(scope="module")
def case():
    return head_neck(3, (6, 5, 5), 1.0, (24, 48, 48)).without_structures()


@pytest.fixture(scope="module")
def contourer():
    torch.manual_seed(1)
    task = ContourTask(SETTINGS).eval()
    return Contourer(task, "torch", Tidy.off())


@pytest.mark.parametrize("axes", [np.diag([1.0, -1, -1])[:, ::-1], -np.eye(3)[::-1], np.eye(3)])
def test_the_same_patient_on_turned_axes_gets_the_same_contours(case, contourer, axes):
    """HFP, FFS or sagittal stacks: voxels in another order, the same patient."""
    turned = Case(case.id, images={"ct": case.ct.to(case.geometry.reorient(axes))})
    assert not turned.geometry.same_grid(case.geometry)
    here, there = contourer.predict(case), contourer.predict(turned)
    assert there.geometry.same_grid(turned.geometry)
    for name in SETTINGS.structures:
        assert (there.mask(name).to(case.geometry).array == here.mask(name).array).all()


def test_a_near_grid_is_kept_and_a_far_one_resampled(contourer):
    near = Geometry.regular((10, 20, 20), (5.0, 5.5, 4.5))
    fine = Geometry.regular((30, 100, 100), (2.0, 1.0, 1.0))
    assert contourer.task.settings.working_grid(near).same_grid(near)
    assert contourer.task.settings.working_grid(fine).spacing_mm == pytest.approx((6, 5, 5))


def test_flat_nets_never_resample_between_slices():
    task = ContourTask(FLAT)
    grid = Geometry.regular((30, 100, 100), (2.0, 1.0, 1.0))
    assert task.settings.working_grid(grid).spacing_mm == pytest.approx((2.0, 5, 5))


def test_a_fine_ct_comes_home_to_its_own_grid(case, contourer):
    fine = case.geometry.resample((3, 2.5, 2.5))
    answer = contourer.predict(Case(case.id, images={"ct": case.ct.to(fine)}))
    assert answer.geometry.same_grid(fine)
    assert all(mask.geometry.same_grid(fine) for mask in answer.masks.values())


def test_openvino_contours_as_torch_does(case, contourer):
    other = Contourer(contourer.task, "openvino", Tidy.off())
    a, b = contourer.predict(case), other.predict(case)
    for name in SETTINGS.structures:
        assert (a.mask(name).array != b.mask(name).array).mean() < 1e-4
    assert b.segmentation.backend == "openvino"


def test_neighbouring_slices_ride_along_as_channels(case):
    task = ContourTask(FLAT)
    whole = head_neck(3, (6, 5, 5), 1.0, (24, 48, 48))
    (sample,) = task.samples(whole)
    draws = task.plan([sample], np.random.default_rng(0), train=False)
    item = task.item([sample], draws[0])
    assert item["image"].shape == (3, 24, 24)
    assert item["masks"].shape == (1, 24, 24)
    answer = Contourer(task.eval(), "torch", Tidy.off()).predict(case)
    assert answer.mask("Bone_Mandible").geometry.same_grid(case.geometry)


@pytest.mark.parametrize(("slices", "expected"), [("all", "every"), ("target", "bearing")])
def test_slice_protocols(slices, expected):
    task = ContourTask(ContourSettings(**{**FLAT.__dict__, "slices": slices, "draws": 0}))
    (sample,) = task.samples(head_neck(3, (6, 5, 5), 1.0, (24, 48, 48)))
    draws = task.plan([sample], np.random.default_rng(0), train=True)
    bearing = int(sample.bits.any(axis=(1, 2)).sum())
    assert len(draws) == {"every": 24, "bearing": bearing}[expected]
    assert 0 < bearing < 24
    assert len({draw.centre[0] for draw in draws}) == len(draws)


def test_what_the_net_sees_nowhere_is_present_and_empty(case):
    task = ContourTask(SETTINGS).eval()
    with torch.no_grad():
        task.net.head.bias.fill_(-50)
    answer = Contourer(task, "torch").predict(case)
    assert answer.structures == SETTINGS.structures
    assert not answer.mask("Brainstem").array.any()


def test_one_minus_dsc_by_pencil():
    """Two voxels claimed half each, one of them true: DSC = (2 * 0.5 + 1) / (1 + 1 + 1)."""
    dsc, counted = soft_dice(torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert float(dsc) == pytest.approx(2 / 3)
    assert float(counted) == 1


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no model"):
        load_contourer(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not a model")
    with pytest.raises(ModelError, match="safetensors"):
        load_contourer(tmp_path / "text.safetensors")


def test_a_model_file_contours_as_the_task_it_came_from(case, contourer, tmp_path):
    save_model(contourer.task, tmp_path / "m.safetensors", half=False)
    loaded = load_contourer(tmp_path / "m.safetensors", backend="torch", rules=Tidy.off())
    a, b = contourer.predict(case), loaded.predict(case)
    assert all((a.mask(name).array == b.mask(name).array).all() for name in SETTINGS.structures)
    assert b.segmentation.sha256 == loaded.card.sha256 != ""


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="1 to 32"):
        ContourSettings(structures=())
    with pytest.raises(ConfigError, match="a single point to net 'unet3d' at its coarsest: one side of 32"):
        ContourTask(ContourSettings(("Brainstem",), window=(16, 16, 16)))
    ContourTask(ContourSettings(("Brainstem",), window=(32, 16, 16)))
    with pytest.raises(ConfigError, match="low to high"):
        ContourSettings(structures=("A",), hu=(100, -100))


def test_islands_of_a_masked_ct_reach_the_net_and_a_couch_does_not():
    """OpenKBP shows a spinal cord in a column of its own: an outline of the patient would cut it off."""
    grid = Geometry.regular((12, 60, 60), (6.0, 5.0, 5.0))
    rng = np.random.default_rng(0)
    scan = rng.normal(-1000, 12, grid.shape).clip(-1024, None)
    scan[:, 15:45, 15:45] = 40
    scan[:, 50:52, 5:55] = 100
    masked = np.full(grid.shape, -1024.0)
    masked[6:, 15:45, 15:45] = 40
    masked[:7, 30:33, 30:33] = 40
    contourer = Contourer(ContourTask(ContourSettings(**{**SETTINGS.__dict__, "mask_body": True})).eval(), "torch")
    images = [contourer.image(Case("p", images={"ct": Volume(hu.astype(np.int16), grid)}), grid) for hu in (scan, masked)]
    assert images[0].array.shape == (12, 38, 38), "cut to the patient and four voxels of air"
    seen = [image.to(grid, fill=-1.0).array for image in images]
    assert (seen[0][:, 50:52, 5:55] == -1).all(), "couch"
    assert (seen[0][:, 20:40, 20:40] > -1).all(), "patient"
    assert (seen[1][:7, 30:33, 30:33] > -1).all(), "island"


def test_the_hardest_voxels_alone_weigh_a_stray_claim_more():
    settings = {**SETTINGS.__dict__, "structures": ("Brainstem",), "net_options": {"widths": (4, 8)}}
    losses = {}
    for hardest in (1.0, 0.01):
        task = ContourTask(ContourSettings(**{**settings, "hardest": hardest})).eval()
        batch = {"image": torch.zeros(1, 1, 10, 10, 10), "masks": torch.zeros(1, 1, 10, 10, 10), "known": torch.ones(1, 1)}
        # One stray claim among a thousand voxels: its cross-entropy is ln(1 + e^8), that of the others ln(1 + e^-8).
        logits = torch.full((1, 1, 10, 10, 10), -8.0)
        logits[0, 0, 5, 5, 5] = 8.0
        task.net.forward = lambda _, given=logits: given  # type: ignore[method-assign]
        losses[hardest] = task.loss(batch)[1]["bce"]
    small = float(np.log1p(np.exp(-8.0)))
    assert losses[1.0] == pytest.approx((8 + small + 999 * small) / 1000, rel=1e-4)
    assert losses[0.01] == pytest.approx((8 + small + 9 * small) / 10, rel=1e-4)
    with pytest.raises(ConfigError, match="hardest"):
        ContourSettings(structures=("A",), hardest=0.0)


def test_with_mirror_a_mirrored_patient_gets_mirrored_contours_and_sides_swap(case):
    """An untrained net has no symmetry of its own; the mean over both ways has it exactly."""
    torch.manual_seed(2)
    names = ("Parotid_L", "Parotid_R", "Brainstem")
    settings = {**SETTINGS.__dict__, "structures": names, "window": (24, 48, 48)}
    ct = case.ct.to(case.geometry.reorient())
    other = Case("m", images={"ct": Volume(np.ascontiguousarray(ct.array[..., ::-1]), ct.geometry)})
    same = {}
    for mirror in (False, True):
        task = ContourTask(ContourSettings(**{**settings, "mirror": mirror})).eval()
        contourer = Contourer(task, "torch", Tidy.off())
        a, b = (contourer.predict(one) for one in (Case("p", images={"ct": ct}), other))
        pairs = (("Parotid_L", "Parotid_R"), ("Parotid_R", "Parotid_L"), ("Brainstem", "Brainstem"))
        same[mirror] = all((a.mask(x).array == b.mask(y).array[..., ::-1]).mean() > 0.999 for x, y in pairs)
    assert same == {False: False, True: True}
    with pytest.raises(ConfigError, match="mirror"):
        ContourTask(ContourSettings(structures=("Parotid_L",), mirror=True))


@pytest.mark.parametrize("names", [("Parotid_L_PRV05", "Parotid_R_PRV05"), ("Left Lung", "Right Lung")])
def test_a_mirrored_window_swaps_the_sides_wherever_the_name_says_them(names):
    """A bright block on the right, a dark one on the left; in a mirrored window the dark one is the right one."""
    grid = Geometry.regular((8, 16, 16), (2.5, 4.0, 4.0))
    hu = np.full(grid.shape, -1000, np.int16)
    hu[2:6, 6:10, 2:5], hu[2:6, 6:10, 11:14] = 400, -100  # i runs from right to left
    masks = {names[0]: Volume(hu == -100, grid), names[1]: Volume(hu == 400, grid)}
    still = Ranges(rotation_deg=0, tilt_deg=0, zoom=0, shift_mm=0, hu_shift=0, hu_scale=0, noise_hu=0)
    task = ContourTask(ContourSettings(names, net_options={"widths": (4, 8)}, window=grid.shape, hu=(-1000, 1000), augment=still))
    samples, seen = task.samples(Case("p", {"ct": Volume(hu, grid)}, masks)), set()
    for seed in range(8):
        item = task.item(samples, Draw(0, (3.5, 7.5, 7.5), seed))
        left, right = item["masks"].bool()
        assert right.nonzero()[:, 2].max() < 8 <= left.nonzero()[:, 2].min(), "whatever is mirrored, right stays right"
        seen.add(round(float(item["image"][0][right].mean()), 3))
    assert seen == {0.4, -0.1}, "as it lies, and mirrored"


def test_one_side_alone_is_never_mirrored_and_a_vertebra_has_no_side():
    assert mirrored(("Parotid_L_PRV05", "Brainstem")) is None
    assert mirrored(("VB_L1", "VB_T12", "Lens_L", "Lens_R")) == [0, 1, 3, 2]


def test_patients_without_a_voxel_to_learn_from():
    grid = Geometry.regular((8, 16, 16), (6.0, 5.0, 5.0))
    nothing = Volume(np.zeros(grid.shape, bool), grid)
    task = ContourTask(SETTINGS)
    samples = task.samples(Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}, {"Brainstem": nothing}))
    with pytest.raises(TrainingError, match="no patient has a voxel of Bone_Mandible, Brainstem"):
        task.plan(samples, np.random.default_rng(0), train=True)
    assert [draw.centre for draw in task.plan(samples, np.random.default_rng(0), train=False)] == [(3.5, 7.5, 7.5)]


def test_what_is_too_thin_for_the_grid_is_not_taught_as_absent():
    """An artery of 5 mm is nowhere half of a voxel of 4 x 4 mm here: it was contoured, so the net must not learn that there is none."""
    grid = Geometry.regular((40, 120, 120), (2.5, 1.0, 1.0))
    k, j, i = np.indices(grid.shape)
    artery, absent = (np.hypot(j - 60.3, i - 40.2) < 2.5) & (k > 5) & (k < 35), np.zeros(grid.shape, bool)
    names = ("A_Carotid_L", "Brainstem", "Larynx")
    task = ContourTask(ContourSettings(names, net_options={"widths": (4, 8)}, window=(8, 16, 16)))
    images = {"ct": Volume(np.zeros(grid.shape, np.int16), grid)}
    masks = {"A_Carotid_L": Volume(artery, grid), "Brainstem": Volume(absent, grid)}
    (sample,) = task.samples(Case("p", images, masks))
    assert artery.sum() * 2.5 > 1400
    assert sample.known.tolist() == [False, True, False], "looked for and not found is known, not contoured is not"
    assert sample.lost == ("A_Carotid_L",)
    assert finish(task, [sample], []) == {"too_thin": {"A_Carotid_L": 1}}
    square = np.array([[50.2, 50.2, 10.0], [51.2, 50.2, 10.0], [51.2, 51.2, 10.0], [50.2, 51.2, 10.0]])
    assert task.samples(Case("p", images, {}, {"A_Carotid_L": Contours([square])}))[0].lost == ("A_Carotid_L",)


def test_slices_ride_along_with_flat_nets_alone():
    with pytest.raises(ConfigError, match="neighbours=1 with net 'unet3d'"):
        ContourTask(replace(SETTINGS, neighbours=1))


# ---- structures that overlap

NESTED = ("GTV", "PTV")
CYLINDERS = Geometry.regular((16, 24, 24), (3.0, 4.0, 4.0))
"""Voxels of 48 mm3."""


def nested(number=0, names=NESTED):
    """A tumour of 21 voxels a slice (200 HU) in a target of 69 (100 HU), 16 slices of both: 16.1 and 53.0 cc."""
    _, j, i = np.indices(CYLINDERS.shape)
    far = np.hypot(j - 12, i - 12)
    hu = np.where(far < 2.5, 200, np.where(far < 4.5, 100, -100)).astype(np.int16)
    masks = {name: Volume(far < radius, CYLINDERS) for name, radius in zip(names, (2.5, 4.5), strict=True)}
    return Case(f"p{number}", {"ct": Volume(hu, CYLINDERS)}, masks)


def nested_task(overlap):
    """Sees the tumour above 150 HU and the target above 0 HU, and is surer of the tumour where both are."""
    made = ContourTask(
        ContourSettings(
            NESTED,
            net_options={"widths": (4, 8)},
            spacing_mm=(3, 4, 4),
            window=(8, 16, 16),
            hu=(-500, 500),
            mask_body=False,
            overlap=overlap,
        )
    )
    made.net = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        made.net.weight[:] = torch.tensor([100.0, 10.0]).reshape(2, 1, 1, 1, 1)
        made.net.bias[:] = torch.tensor([-30.0, 0.0])  # grey values run from -1 to 1: 150 HU is 0.3
    return made.eval()


@pytest.mark.parametrize("fine", [False, True])
def test_a_target_keeps_the_tumour_within_it(fine):
    case = nested()
    if fine:
        grid = CYLINDERS.resample((3, 2, 2))
        case = Case("p", {"ct": case.ct.to(grid)}, {name: mask.to(grid) for name, mask in case.masks.items()})
    bare = case.without_structures()
    whole = Contourer(nested_task(True), "torch").predict(bare)
    apart = Contourer(nested_task(None), "torch").predict(bare)
    cc = {name: case.masks[name].volume_cc for name in NESTED}
    if not fine:
        assert cc == {"GTV": pytest.approx(21 * 16 * 0.048), "PTV": pytest.approx(69 * 16 * 0.048)}
        assert {name: whole.masks[name].volume_cc for name in NESTED} == cc
    assert whole.masks["GTV"].array.any()
    assert (whole.masks["PTV"].array | ~whole.masks["GTV"].array).all(), "the tumour lies in its target"
    assert whole.masks["PTV"].volume_cc == pytest.approx(cc["PTV"], rel=0.1)
    assert (isinstance(whole.masks, BitMasks), isinstance(apart.masks, LabelMasks)) == (True, True)
    assert not (apart.masks["PTV"].array & apart.masks["GTV"].array).any(), "as before where nothing else was said"
    assert apart.masks["PTV"].volume_cc + apart.masks["GTV"].volume_cc == pytest.approx(whole.masks["PTV"].volume_cc)
    dose = Volume(np.where(whole.masks["GTV"].array, 70.0, 60.0).astype(np.float32), case.geometry)
    means = [dvh(dose, found.masks["PTV"]).mean_gy for found in (whole, apart)]
    assert means[0] == pytest.approx(60 + 10 * 21 / 69, abs=0.3), "21 of 69 voxels have 70 Gy, in the shell alone none"
    assert means[1] < means[0] - 1


def test_a_run_writes_the_target_whole(tmp_path):
    """A net that is certain of both everywhere, surer of the tumour: through the model's file and a run both fill the image."""
    volumes = {}
    for overlap in (None, True):
        task = ContourTask(ContourSettings(NESTED, net_options={"widths": (4, 8)}, window=(16, 16, 16), mask_body=False, overlap=overlap))
        with torch.no_grad():
            task.net.head.weight.zero_()
            task.net.head.bias[:] = torch.tensor([6.0, 4.0])
        file = tmp_path / f"{overlap}.safetensors"
        save_model(task, file)
        source = patient(tmp_path / f"patient-{overlap}", nested().without_structures())
        out = tmp_path / f"out-{overlap}"
        pipeline.run(source, out=out, model=[str(file)], assess=False, backend="torch", threads=1)
        rows = json.loads((out / "report.json").read_text())["structures"]
        volumes[overlap] = {row["name"]: row["volume_cc"] for row in rows}
    image = 16 * 24 * 24 * 0.048
    assert volumes[None] == {"GTV": pytest.approx(image), "PTV": 0}
    assert volumes[True] == {"GTV": pytest.approx(image), "PTV": pytest.approx(image)}


def test_thresholds_hold_for_each_structure_by_itself():
    task = nested_task(True)
    task.settings = replace(task.settings, threshold=(0.5, 0.9999))  # a logit of 9.2: 920 HU, which is nowhere
    found = Contourer(task, "torch").predict(nested().without_structures())
    assert found.masks["GTV"].volume_cc == pytest.approx(21 * 16 * 0.048)
    assert not found.masks["PTV"].array.any()


def test_what_is_learned_from_overlapping_structures_must_be_said(tmp_path):
    cases = [nested(n) for n in range(3)]
    settings = ContourSettings(NESTED, net_options={"widths": (4, 8)}, spacing_mm=(3, 4, 4), window=(8, 16, 16), draws=2)
    training = TrainSettings(epochs=1, batch=2, threads=1, validation=0.34)
    with pytest.raises(TrainingError, match=r"GTV \(16\.1 cc\) and PTV \(53\.0 cc\) share 16\.1 cc.*patient p\d.*settings\.overlap true"):
        fit(ContourTask(settings), cases, tmp_path / "refused", training)
    assert not list((tmp_path / "refused").rglob("*.safetensors"))
    outcome = fit(ContourTask(replace(settings, overlap=True)), cases, tmp_path / "whole", training)
    assert outcome.card.settings["overlap"] is True
    assert load_contourer(outcome.model).task.settings.overlap is True
    samples = [s for case in cases for s in ContourTask(settings).samples(case)]
    assert ContourTask(replace(settings, overlap=False)).plan(samples, np.random.default_rng(0), train=True)


def test_cards_from_before_say_nothing_and_their_organs_stay_apart(contourer):
    card = read_card(find("hn-organs"))
    assert "overlap" not in card.settings
    assert ContourTask.from_card(card).settings.overlap is None
    grid = Geometry.regular((16, 24, 24), (6.0, 5.0, 5.0))
    assert isinstance(contourer.predict(Case("p", {"ct": Volume(np.zeros(grid.shape, np.int16), grid)})).masks, LabelMasks)


def test_structures_that_only_touch_badly_do_not_clash():
    """Two boxes of 6 x 6 x 6 voxels of 1 mm3, one moved over the other by so many slices."""
    grid = Geometry.regular((12, 8, 8), (1.0, 1.0, 1.0))

    def moved(slices, mates=()):
        bits = np.zeros(grid.shape, np.uint32)
        bits[:6, 1:7, 1:7] |= np.uint32(1)
        bits[6 - slices : 12 - slices, 1:7, 1:7] |= np.uint32(2)
        for n in mates:
            bits[:2, 1:7, 1:7] |= np.uint32(1 << n)
        return clash(["A", "B", "C"], bits, grid)

    assert moved(0) is None
    assert moved(1) is None, "36 of 216 voxels, none of them deeper than one"
    assert moved(2) == Clash(("A", "B"), (0.216, 0.216), 0.072), "a third"
    assert moved(0, mates=[2]) == Clash(("A", "C"), (0.216, 0.072), 0.072), "one within the other"
    wide = Geometry.regular((20, 22, 22), (1.0, 1.0, 1.0))
    bits = np.zeros(wide.shape, np.uint32)
    bits[:12, 1:21, 1:21] |= np.uint32(1)
    bits[9:, 1:21, 1:21] |= np.uint32(2)
    found = clash(["A", "B"], bits, wide)
    assert found == Clash(("A", "B"), (4.8, 4.4), 1.2), "3 slices of 400 of 4400 voxels: less than a third, but 18 x 18 lie deep"


def test_real_organs_that_overlap_a_little_are_learned_from_as_before(data):
    """OpenKBP: the patient whose brainstem and cord share the most (17 %), the one whose oesophagus and cord do (30 %), and one whose
    larynx lies in the PTV."""
    settings = replace(SETTINGS, structures=("Brainstem", "SpinalCord", "Esophagus", "Larynx", "PTV_7000"), spacing_mm=(2.5, 4.0, 4.0))
    task, found = ContourTask(settings), {}
    for patient_id in ("pt_152", "pt_89", "pt_60"):
        (sample,) = task.samples(read(data / "openkbp" / "train" / patient_id))
        found[patient_id] = sample.clash and sample.clash.structures
    assert found == {"pt_152": None, "pt_89": None, "pt_60": ("Larynx", "PTV_7000")}

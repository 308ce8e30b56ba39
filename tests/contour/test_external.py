"""Other people's models, made here by hand so that what they must answer is known: class 1 above 125 HU, class 2 below -125 HU. On the
drawn patient that is a ball on the left and a ball on the right, so that a swapped or shifted axis shows at once."""

import argparse
import json
import pickle

import numpy as np
import pytest
import torch

from oncontour.contour.external.base import load_tensors
from oncontour.contour.external.bundle_steps import STEPS
from oncontour.contour.external.load import is_foreign, load_foreign
from oncontour.contour.external.nnunet_input import Recipe, resized, resized_grid
from oncontour.contour.external.nnunet_net import build_net
from oncontour.core.case import Case
from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, ModelError
from oncontour.nets.nnunet import NnUNet
from oncontour.ops.tidy import Tidy

GRID = Geometry.regular((24, 40, 44), (3.0, 2.0, 2.0), (-43.0, -39.0, 100.0))
NAMES = {"background": 0, "parotid_left": 1, "Right Parotid": 2}
SCORES = [(0.0, 0.0), (1.0, -2.5), (-1.0, 1.5)]
"""(weight, bias) of each class on x = (HU + 500) / 250: water has 2, class 1 begins at 2.5, class 2 ends at 1.5."""


def balls():
    k, j, i = np.indices(GRID.shape)
    x, y, z = (GRID.points(np.stack([k, j, i], -1))[..., n] for n in range(3))
    left = (x - 18) ** 2 + (y + 8) ** 2 + (z - 130) ** 2 < 15**2
    right = (x + 18) ** 2 + (y - 6) ** 2 + (z - 140) ** 2 < 15**2
    return left, right


@pytest.fixture
def case():
    left, right = balls()
    return Case("drawn", {"ct": Volume(np.where(left, 250, np.where(right, -250, 0)).astype(np.int16), GRID)})


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def check(contoured, case, least=0.95):
    left, right = balls()
    grid = case.geometry
    assert list(contoured.masks) == ["Parotid_L", "Parotid_R"]
    for name, truth in (("Parotid_L", left), ("Parotid_R", right)):
        mask = contoured.masks[name]
        assert mask.geometry == grid
        assert dice(mask.array, Volume(truth, GRID).to(grid).array) >= least, name
    made = contoured.segmentation
    assert made.original_names == {"Parotid_L": "parotid_left", "Parotid_R": "Right Parotid"}
    assert len(made.sha256) == 64


# ---- nnU-Net


def architecture(kind="PlainConvUNet", dims=3):
    blocks = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [2, 3],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * 2,
            "strides": [[1] * dims, [2] * dims],
            blocks: [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.batchnorm.BatchNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5},
            "dropout_op": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(dims=3, transpose=(0, 1, 2), spacing=(3.0, 2.5, 2.5)):
    return {
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": -500.0, "std": 250.0, "percentile_00_5": -1000.0, "percentile_99_5": 1000.0}
        },
        "configurations": {
            "3d_fullres" if dims == 3 else "2d": {
                "patch_size": [12, 16, 16][3 - dims :],
                "spacing": list(spacing)[3 - dims :],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
                "architecture": architecture(dims=dims),
            }
        },
    }


def identity(net):
    """Weights that carry x along the first channel at full resolution and end in SCORES; everything else is zero."""
    weights = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    for name, value in weights.items():
        if name.endswith(("norm.weight", "running_var")):
            value.fill_(1)
    return weights


def centre(weight, o, i):
    weight[(o, i, *(n // 2 for n in weight.shape[2:]))] = 1


def nnunet_weights(net):
    weights = identity(net)
    centre(weights["encoder.stages.0.0.convs.0.conv.weight"], 0, 0)
    centre(weights["decoder.stages.0.convs.0.conv.weight"], 0, 2)  # after the two channels from below
    head = weights["decoder.seg_layers.0.weight"], weights["decoder.seg_layers.0.bias"]
    for n, (slope, bias) in enumerate(SCORES):
        head[0][n, 0] = slope
        head[1][n] = bias
    return weights


def doubled(weights):
    """As nnU-Net saves them: every block a second time as ``all_modules``, the encoder a second time in the decoder."""
    out = dict(weights)
    for name, value in weights.items():
        number = {"conv": "0", "norm": "1"}
        for part, n in number.items():
            if f".{part}." in name:
                out[name.replace(f".{part}.", f".all_modules.{n}.")] = value
    return {**out, **{f"decoder.{name}": value for name, value in out.items() if name.startswith("encoder.")}}


def nnunet_folder(tmp_path, dims=3, folds=(0,), axes="SPL", changes=None, **options):
    folder = tmp_path / f"nnUNetTrainer__nnUNetPlans__{'3d_fullres' if dims == 3 else '2d'}"
    folder.mkdir()
    said = {**plans(dims, **options), **(changes or {})}
    (folder / "plans.json").write_text(json.dumps(said))
    (folder / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": NAMES, "file_ending": ".nii.gz"}))
    if axes:
        (folder / "oncontour.json").write_text(json.dumps({"axes": axes}))
    name, configuration = next(iter(said["configurations"].items()))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": doubled(nnunet_weights(build_net(configuration, 1, 3, folder))),
            "logging": {"mean_fg_dice": [np.float64(0.8), np.float32(0.9)]},
            "_best_ema": np.float64(0.85),
            "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(range(dims)),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_an_nnunet_model(tmp_path, case, backend):
    folder = nnunet_folder(tmp_path)
    assert is_foreign(folder)
    model = load_foreign(folder, backend=backend)
    seen = []
    check(model.predict(case, progress=seen.append), case)
    assert seen[-1] == 1
    assert model.card.structures == ["Parotid_L", "Parotid_R"]
    assert "commission it" in model.card.limits


@pytest.mark.parametrize(("dims", "transpose"), [(3, (2, 0, 1)), (2, (0, 1, 2)), (2, (1, 0, 2))])
def test_nnunet_with_turned_axes_and_in_slices(tmp_path, case, dims, transpose):
    check(load_foreign(nnunet_folder(tmp_path, dims, transpose=transpose), backend="torch").predict(case), case)


def test_nnunet_folds_and_mirrors_are_averaged(tmp_path, case):
    folder = nnunet_folder(tmp_path, folds=(0, 1))
    check(load_foreign(folder, backend="torch", mirror=True).predict(case), case)
    with pytest.raises(ModelError, match="fold_3"):
        load_foreign(folder, folds=[3])


@pytest.mark.parametrize("axes", [[(1, 0, 0), (0, 1, 0), (0, 0, -1)], [(0, 0, 1), (0, -1, 0), (-1, 0, 0)]])
def test_the_cases_own_order_does_not_matter_where_the_model_says_its_own(tmp_path, case, axes):
    turned = Case("turned", {"ct": case.ct.to(GRID.reorient(axes))})
    check(load_foreign(nnunet_folder(tmp_path), backend="torch").predict(turned), turned)


def test_where_nothing_says_which_side_is_left_the_model_is_refused(tmp_path, case):
    """A supine patient and a prone one lie in their files turned by half: a net that tells sides by the place would swap them."""
    folder = nnunet_folder(tmp_path, axes=None, changes={"image_reader_writer": "SimpleITKIO"})
    with pytest.raises(ModelError, match=r"left could be right.*oncontour\.json"):
        load_foreign(folder)
    (folder / "oncontour.json").write_text(json.dumps({"axes": "own"}))
    model = load_foreign(folder, backend="torch")
    prone = Case("prone", {"ct": case.ct.to(GRID.reorient([(0, 0, 1), (0, -1, 0), (-1, 0, 0)]))})
    assert [model.model.prepare(one).geometry.axes[2].tolist() for one in (case, prone)] == [[1, 0, 0], [-1, 0, 0]]
    assert "left and right may be swapped" in model.predict(case).segmentation.notes[0]


@pytest.mark.parametrize("reader", ["NibabelIOWithReorient", "SimpleITKIOWithReorient"])
def test_images_that_the_models_reader_turned_are_turned_for_it(tmp_path, case, reader):
    """Both readers turn images to RAS: arrays (k, j, i) run to superior, anterior, right."""
    import SimpleITK as sitk

    model = load_foreign(nnunet_folder(tmp_path, axes=None, changes={"image_reader_writer": reader}), backend="torch")
    seen = model.model.prepare(case).geometry
    image = sitk.GetImageFromArray(case.ct.array)
    turned = np.array(sitk.DICOMOrient(image, "RAS").GetDirection()).reshape(3, 3)  # columns: where i, j, k run to, in LPS
    assert seen.axes.tolist() == turned.T[::-1].tolist() == [[0, 0, 1], [0, -1, 0], [-1, 0, 0]]
    check(model.predict(case), case)


def test_slices_picked_along_a_coarse_axis_lie_where_they_were_picked(tmp_path):
    """5 mm slices out of 2.5 mm ones: of two as near the later is taken, so that what it shows lies 1.25 mm above the middle of both."""
    grid = Geometry.regular((40, 32, 32), (2.5, 2.0, 2.0), (-31.0, -31.0, -48.75))
    far = np.linalg.norm(grid.points(np.stack(np.indices(grid.shape), -1)), axis=-1)
    ball = Case("ball", {"ct": Volume((250 * np.clip((20 - far) / 6 + 0.5, 0, 1)).astype(np.int16), grid)})
    folder = nnunet_folder(tmp_path, spacing=(5.0, 1.6, 1.6))
    found = load_foreign(folder, backend="torch", rules=Tidy.off()).predict(ball).masks["Parotid_L"]
    centre = grid.points(np.argwhere(found.array).mean(axis=0))
    assert np.abs(centre).max() < 0.3, "half a slice of 2.5 mm would be 1.25"
    assert found.volume_cc == pytest.approx(4 / 3 * np.pi * 8, rel=0.05)
    picked = Geometry.regular((12, 4, 4), (1.0, 1.0, 1.0))
    assert resized_grid(picked, (3, 4, 4), 0).origin_mm[2] == 2.0, "of slices 0 to 3 the third"
    assert resized_grid(picked, (3, 4, 4)).origin_mm[2] == 1.5


def test_two_axes_as_coarse_stay_so_on_a_turned_grid(tmp_path):
    """nnU-Net goes slice by slice along one coarse axis, not along one of two; steps of a turned grid are equal but for their last bit."""
    turn, said = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0], plans()
    recipe = Recipe.of({"channel_names": {"0": "CT"}, "labels": NAMES}, said, said["configurations"]["3d_fullres"], nnunet_folder(tmp_path))
    spacings = [Geometry.regular((4, 4, 4), (1.0, n / 7, n / 7), axes=turn).spacing_mm for n in range(22, 60)]
    assert any(j != i for _, j, i in spacings)
    assert [recipe._coarse_axis(old, (2.5, 1.2, 1.2)) for old in spacings] == [None] * len(spacings)
    assert recipe._coarse_axis((1.0, 5.0, 4.0), (2.5, 1.2, 1.2)) == 1


def test_each_channel_is_an_image_of_its_own(tmp_path, case):
    folder = nnunet_folder(tmp_path)
    said = json.loads((folder / "plans.json").read_text())
    c = said["configurations"]["3d_fullres"]
    c |= {"normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [False] * 2}
    (folder / "plans.json").write_text(json.dumps(said))
    both = case.with_images({"mr": case.ct})

    def prepared(channels):
        dataset = {"channel_names": channels, "labels": NAMES}
        return Recipe.of(dataset, said, c, folder).prepare(both).array

    for channels, match in (({"0": "T1", "1": "T2"}, "would be the case's images"), ({"0": "CT", "1": "PET"}, "channel 'PET'")):
        with pytest.raises(ModelError, match=match):
            prepared(channels)
    for called in ("cineMRI", "MPRAGE", "T2w", "DCE-MRI"):
        assert len(prepared({"0": "CT", "1": called})) == 2
    (folder / "oncontour.json").write_text(json.dumps({"axes": "SPL", "images": ["ct", "mr"]}))
    assert len(prepared({"0": "a", "1": "b"})) == 2
    (folder / "oncontour.json").write_text(json.dumps({"axes": "SPL", "images": ["ct"]}))
    with pytest.raises(ModelError, match="2 names"):
        prepared({"0": "a", "1": "b"})


def test_mirroring_that_the_checkpoint_does_not_allow_is_no_other_setting(tmp_path):
    folder = nnunet_folder(tmp_path)
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": load_tensors(path)["network_weights"]}, path)
    with pytest.raises(ModelError, match="mirroring along no axis"):
        load_foreign(folder, mirror=True)


def test_which_folds_are_averaged_and_which_are_not_is_said(tmp_path):
    folder = nnunet_folder(tmp_path, folds=(0, 1, "all", "0_old"))
    (folder / "fold_1" / "checkpoint_final.pth").rename(folder / "fold_1" / "checkpoint_best.pth")
    (folder / "fold_2").mkdir()
    notes = load_foreign(folder, backend="torch").model.notes
    assert notes == (
        "left out of the average: fold_0_old, fold_2, fold_all",
        "fold_1: checkpoint_best.pth, as checkpoint_final.pth is missing",
    )


def test_old_plans_and_residual_encoders_are_built():
    old = {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 6,
        "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "patch_size": [8, 16, 16],
    }
    net = build_net(old, 1, 3, "here")
    assert net(torch.zeros(1, 1, 4, 8, 8)).shape == (1, 3, 4, 8, 8)
    assert {name.split(".")[0] for name in net.state_dict()} == {"encoder", "decoder"}
    residual = build_net({"architecture": architecture("ResidualEncoderUNet"), "patch_size": [8, 8, 8]}, 2, 5, "here")
    assert residual(torch.zeros(1, 2, 8, 8, 8)).shape == (1, 5, 8, 8, 8)
    assert "encoder.stages.1.blocks.0.skip.1.conv.weight" in residual.state_dict(), "pooled, then projected"


def test_the_parameters_of_nnunets_own_net_by_count():
    """dynamic_network_architectures 0.4.4, PlainConvUNet and ResidualEncoderUNet of these sizes: 155111 and 214791 parameters."""
    options = {"widths": [8, 16, 24, 24], "kernels": [[1, 3, 3], *[[3] * 3] * 3], "strides": [[1] * 3, [1, 2, 2], [2] * 3, [2] * 3]}
    plain = NnUNet(2, 5, encoder=[2, 2, 3, 2], decoder=[2, 1, 2], **options)
    residual = NnUNet(2, 5, kind="residual", encoder=[1, 3, 2, 2], decoder=[1, 1, 1], **options)
    assert [sum(p.numel() for p in net.parameters()) for net in (plain, residual)] == [155111, 214791]


def test_resizing_keeps_the_box_and_goes_slice_by_slice_along_a_coarse_axis():
    ramp = np.arange(8, dtype=np.float32)[None, None] + np.zeros((3, 4, 8), np.float32)
    assert resized(ramp, (3, 4, 4), 1, None, 0)[0, 0].tolist() == pytest.approx([0.5, 2.5, 4.5, 6.5], abs=0.01)
    steps = np.array([0.0, 10.0, 20.0], np.float32)[:, None, None] + np.zeros((3, 4, 8), np.float32)
    assert resized(steps, (6, 4, 8), 3, 0, 0)[:, 0, 0].tolist() == [0, 0, 10, 10, 20, 20]


def test_what_nnunet_offers_and_we_do_not(tmp_path):
    folder = nnunet_folder(tmp_path)
    said = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())

    def refused(match, **changes):
        c = {**said["configurations"]["3d_fullres"], **changes}
        (folder / "plans.json").write_text(json.dumps({**said, "configurations": {"3d_fullres": c}}))
        with pytest.raises(ModelError, match=match):
            load_foreign(folder)

    refused("cascade", previous_stage="3d_lowres")
    refused("Primus", architecture={"network_class_name": "x.Primus", "arch_kwargs": {}})
    refused("GELU", architecture={**architecture(), "arch_kwargs": {**architecture()["arch_kwargs"], "nonlin": "torch.nn.GELU"}})
    refused("do not fit", architecture={**architecture(), "arch_kwargs": {**architecture()["arch_kwargs"], "features_per_stage": [2, 4]}})
    refused("max_pool", architecture={**architecture(), "arch_kwargs": {**architecture()["arch_kwargs"], "max_pool": True}})
    refused("OtherPreprocessor", preprocessor_name="OtherPreprocessor")
    refused("lacks something", patch_size=None)
    (folder / "plans.json").write_text(json.dumps(said))
    (folder / "dataset.json").write_text(json.dumps({**dataset, "labels": {"background": 0, "whole": [1, 2], "core": [2]}}))
    with pytest.raises(ModelError, match="regions"):
        load_foreign(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(FormatError, match="no JSON"):
        load_foreign(folder)


# ---- pickles


class Bomb:
    """What a hostile checkpoint holds: unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("torch_made", [True, False])
def test_a_pickle_is_never_executed(tmp_path, torch_made):
    trace, bomb = tmp_path / "executed", tmp_path / "model.pth"
    if torch_made:
        torch.save({"network_weights": {"a": torch.zeros(1)}, "logging": Bomb(trace)}, bomb)
    else:
        bomb.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(ModelError, match="more than tensors") as caught:
        load_tensors(bomb)
    assert not trace.exists()
    assert "weights_only=False" in str(caught.value), "the way out shows how whoever trusts the file converts it"


def test_an_object_array_in_a_scalars_clothes_is_refused(tmp_path):
    """numpy rebuilds scalars from bytes; a scalar of objects would be a pickle in a pickle."""
    path = tmp_path / "model.pth"
    scalar = np._core.multiarray.scalar

    class Disguised:
        def __reduce__(self):
            return scalar, (np.dtype("O"), b"cos\nsystem\n(S'true'\ntR.")

    torch.save({"a": Disguised()}, path)
    with pytest.raises(ModelError, match="more than tensors"):
        load_tensors(path)


def test_the_conversion_that_the_message_offers_works(tmp_path):
    import re
    import subprocess
    import sys

    from oncontour.contour.external.base import CONVERT

    old, new = tmp_path / "old.pth", tmp_path / "new.pth"
    torch.save({"network_weights": {"a": torch.ones(2)}, "args": argparse.Namespace(seed=1)}, old)
    with pytest.raises(ModelError):
        load_tensors(old)
    script = re.search(r'python -c "(.*)" OLD NEW', CONVERT).group(1)
    subprocess.run([sys.executable, "-c", script, str(old), str(new)], check=True, timeout=120)
    assert load_tensors(new)["network_weights"]["a"].tolist() == [1, 1]


# ---- MONAI bundles


def bundle_folder(tmp_path, pixdim=(2.0, 2.0, 3.0), **config):
    from monai.networks.nets import BasicUNet

    folder = tmp_path / "parotids"
    for part in ("configs", "models"):
        (folder / part).mkdir(parents=True)
    options = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "features": [2, 2, 2, 2, 2, 2], "norm": "batch"}
    net = BasicUNet(**options)
    weights = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    for name, value in weights.items():
        if name.endswith(("adn.N.weight", "running_var")):
            value.fill_(1)
    for name, i in (("conv_0.conv_0", 0), ("conv_0.conv_1", 0), ("upcat_1.convs.conv_0", 0), ("upcat_1.convs.conv_1", 0)):
        centre(weights[f"{name}.conv.weight"], 0, i)
    for n, (slope, bias) in enumerate(SCORES):
        weights["final_conv.weight"][n, 0] = slope
        weights["final_conv.bias"][n] = bias
    torch.save(weights, folder / "models" / "model.pt")
    channels = {"0": "background", "1": "parotid_left", "2": "Right Parotid"}
    formats = {"inputs": {"image": {"modality": "CT"}}, "outputs": {"pred": {"channel_def": channels}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1", "network_data_format": formats}))
    inference = {
        "imports": ["$import os"],
        "device": "$torch.device('cpu')",
        "features": options.pop("features"),
        "network_def": {"_target_": "BasicUNet", **options, "features": "@features"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": list(pixdim), "mode": "bilinear"},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -500, "a_max": 500, "b_min": 0, "b_max": 4, "clip": True},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "sw_batch_size": 1, "overlap": "$0.25"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
        **config,
    }
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    return folder


def test_a_monai_bundle(tmp_path, case):
    folder = bundle_folder(tmp_path)
    assert is_foreign(folder)
    check(load_foreign(folder, backend="torch").predict(case), case)
    turned = Case("turned", {"ct": case.ct.to(GRID.reorient([(1, 0, 0), (0, 1, 0), (0, 0, -1)]))})
    check(load_foreign(folder, backend="torch").predict(turned), turned)


def test_a_bundle_keeps_to_the_memory_it_is_given(tmp_path, case):
    model = load_foreign(bundle_folder(tmp_path), backend="torch")
    for memory_mb, blend in ((1000, "flat"), (0.1, "core")):
        model.memory_mb = memory_mb
        found = model.predict(case)
        assert found.segmentation.blend == blend
        check(found, case)


def test_a_bundles_code_is_not_run_and_can_be_replaced(tmp_path, case):
    trace = tmp_path / "executed"
    code = f"$[open({str(trace)!r}, 'w'), 2.0, 2.0]"
    folder = bundle_folder(tmp_path)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    config["pixdim"] = code
    config["preprocessing"]["transforms"][3]["pixdim"] = "@pixdim"
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is code, which is not run"):
        load_foreign(folder)
    assert not trace.exists()
    (folder / "oncontour.json").write_text(json.dumps({"pixdim": [2.0, 2.0, 3.0]}))
    check(load_foreign(folder, backend="torch").predict(case), case)


def test_what_a_bundle_may_not_hold(tmp_path):
    folder = bundle_folder(tmp_path)
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    for change, match in (
        ({"network_def": {"_target_": "os.system", "command": "true"}}, "'system'"),
        ({"network_def": "$eval('1')"}, "is code"),
        ({"features": "@features"}, "circle"),
        ({"features": [1]}, "BasicUNet"),
        ({"inferer": {"_target_": "SimpleInferer"}}, "SlidingWindowInferer"),
        ({"preprocessing": [{"_target_": "Lambdad", "func": "$print"}]}, "'Lambdad'"),
    ):
        path.write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError, match=match):
            load_foreign(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features": [20000] * 6}, "larger than the"),
        ({"features": [-2] * 6}, "BasicUNet does not take"),
        ({"features": None}, "BasicUNet does not take"),
        ({"features": {"a": 1}}, "BasicUNet does not take"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": [10**5] * 3}}, "windows of 1 to"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "overlap": "a"}}, "do not hold what they should"),
    ],
    ids=["a huge net", "negative", "null", "an object", "a huge window", "overlap"],
)
def test_a_bundle_of_awkward_values_is_refused_in_a_sentence(tmp_path, change, match):
    folder = bundle_folder(tmp_path)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=match) as caught:
        load_foreign(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"features_per_stage": [20000, 30000]}, "larger than the"),
        ({"n_stages": 10**12}, "at most 32"),
        ({"n_conv_per_stage": [10**9, 1]}, "larger than the"),
        ({"strides": [[0] * 3, [2] * 3]}, "."),
        ({"kernel_sizes": [["a"] * 3] * 2}, "can be built"),
        ({"norm_op_kwargs": [1]}, "can be built"),
    ],
    ids=["a huge net", "endless stages", "endless convolutions", "no stride", "text", "a list"],
)
def test_plans_of_awkward_values_are_refused_in_a_sentence(tmp_path, change, match):
    folder = nnunet_folder(tmp_path)
    said = json.loads((folder / "plans.json").read_text())
    said["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(change)
    (folder / "plans.json").write_text(json.dumps(said))
    with pytest.raises(ModelError, match=match) as caught:
        load_foreign(folder)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plans.json", "{}"),
        ("plans.json", '{"configurations": [1]}'),
        ("plans.json", '{"configurations": {"a": 1}}'),
        ("dataset.json", "{}"),
    ],
)
def test_an_nnunet_whose_files_hold_something_else_is_refused(tmp_path, file, text):
    folder = nnunet_folder(tmp_path)
    (folder / file).write_text(text)
    with pytest.raises(ModelError):
        load_foreign(folder)


def test_what_torch_says_of_a_pickle_asks_nobody_to_write_to_torch(tmp_path):
    (tmp_path / "model.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(ModelError) as caught:
        load_tensors(tmp_path / "model.pth")
    for word in ("issue", "github", "http", "PyTorch", "Re-running"):
        assert word not in caught.value.what


def changed(folder, change):
    """The bundle with its configuration changed by ``change(config, its transforms)``."""
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    change(config, config["preprocessing"]["transforms"])
    path.write_text(json.dumps(config))
    return folder


def test_a_bundle_that_does_not_say_which_side_is_left_is_refused(tmp_path, case):
    folder = changed(bundle_folder(tmp_path), lambda config, steps: steps.pop(2))
    with pytest.raises(ModelError, match=r"left could be right.*oncontour\.json"):
        load_foreign(folder)
    for axes, turned in (("LAS", [[1, 0, 0], [0, -1, 0], [0, 0, 1]]), ("own", [[1, 0, 0], [0, 1, 0], [0, 0, 1]])):
        (folder / "oncontour.json").write_text(json.dumps({"axes": axes}))
        model = load_foreign(folder, backend="torch")
        assert model.model.prepare(case).geometry.axes.tolist() == turned
        check(model.predict(case), case)
        assert [("may be swapped" in note) for note in model.model.notes] == [True] * (axes == "own")


@pytest.mark.parametrize(
    ("number", "setting", "match"),
    [
        (3, {"min_pixdim": [5.0, 5.0, 5.0]}, "Spacingd with min_pixdim"),
        (3, {"mode": "nearest"}, "mode 'nearest'"),
        (3, {"diagonal": True}, "diagonal"),
        (2, {"labels": [["R", "L"], ["A", "P"], ["I", "S"]]}, "another meaning"),
        (4, {"_target_": "CropForegroundd", "source_key": "label"}, "source_key"),
    ],
)
def test_a_setting_of_a_step_that_is_not_understood_is_refused_by_name(tmp_path, number, setting, match):
    def change(config, steps):
        steps[number] = {"keys": "image", **(steps[number] if "_target_" not in setting else {}), **setting}

    with pytest.raises(ModelError, match=match):
        load_foreign(changed(bundle_folder(tmp_path), change))


def test_steps_for_something_else_and_steps_that_are_not_off(tmp_path, case):
    """A step on the label does nothing to the image; "$False" is not off."""

    def change(config, steps):
        steps[2]["_disabled_"] = "$False"
        steps[3].update(keys=["image", "label"], mode=["bilinear", "nearest"])
        steps.append({"_target_": "ScaleIntensityRanged", "keys": ["label"], "a_min": 0, "a_max": 400, "b_min": 0, "b_max": 1})

    check(load_foreign(changed(bundle_folder(tmp_path), change), backend="torch").predict(case), case)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ScaleIntensityd", {"factor": 0.5}),
        ("ScaleIntensityd", {"minv": None, "maxv": None, "factor": 0.5}),
        ("ScaleIntensityRanged", {"a_min": 0, "a_max": 20, "b_min": -1, "b_max": 1, "clip": True}),
        ("NormalizeIntensityd", {"nonzero": True, "channel_wise": True}),
        ("NormalizeIntensityd", {"subtrahend": [3.0], "divisor": [2.0], "channel_wise": True}),
        ("CropForegroundd", {"source_key": "x", "margin": 2}),
        ("CropForegroundd", {"source_key": "x", "margin": [1, 0, 3], "k_divisible": 4, "allow_smaller": True}),
    ],
)
def test_steps_give_what_monai_gives(kind, options):
    import monai.transforms

    values = np.zeros((5, 6, 7), np.float32)
    values[1:4, 2:5, 1:6] = np.arange(1, 46).reshape(3, 3, 5)
    wanted = getattr(monai.transforms, kind)(keys="x", **options)({"x": values[None].copy()})["x"].numpy()[0]
    found = STEPS[kind][0](options)(Volume(values, Geometry.regular(values.shape))).array
    assert found.shape == wanted.shape
    assert np.allclose(found, wanted, atol=1e-6)


def test_a_bundles_threshold_and_what_it_says_of_its_channels(tmp_path, case):
    """Class 0 has a chance of one half everywhere: at 0.9 nothing of it is left."""
    sigmoid = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}

    def after(*steps):
        return lambda config, _: config["postprocessing"].update(transforms=list(steps))

    def discrete(**how):
        return {"_target_": "AsDiscreted", "keys": "pred", **how}

    folder = bundle_folder(tmp_path)
    found = load_foreign(changed(folder, after(sigmoid, discrete(threshold=0.9))), backend="torch", rules=Tidy.off()).predict(case)
    assert not found.masks["background"].array.any()
    model = load_foreign(changed(folder, after(sigmoid, discrete(argmax=True))), backend="torch")
    check(model.predict(case), case)
    softmax = {"_target_": "Activationsd", "keys": "pred", "softmax": True}
    other = {"_target_": "monai.transforms.KeepLargestConnectedComponentd", "keys": "pred", "threshold": "$0.5 * 1"}
    assert load_foreign(changed(folder, after(softmax, other)), backend="torch").model.mode == "softmax"
    for steps, match in (
        ((sigmoid, discrete(threshold=50)), "a probability, not 50"),
        ((softmax, discrete(threshold=0.5)), "threshold of 0.5 on what softmax gives"),
        ((discrete(threshold=0.5),), "on what the net answers gives"),
        (({"_target_": "Activationsd", "keys": "pred"},), "neither"),
    ):
        with pytest.raises(ModelError, match=match):
            load_foreign(changed(folder, after(*steps)))
    changed(folder, after(softmax))
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    for image, channels, match in (
        ({"modality": "n/a"}, formats["outputs"]["pred"]["channel_def"], r"modality 'N/A'.*metadata\.json\]. Way out: .*image\.modality"),
        ({"modality": "CT"}, {"0": "tumour"}, r"one channel \(tumour\)"),
    ):
        said = {"inputs": {"image": image}, "outputs": {"pred": {"channel_def": channels}}}
        (folder / "configs" / "metadata.json").write_text(json.dumps({**metadata, "network_data_format": said}))
        with pytest.raises(ModelError, match=match):
            load_foreign(folder)


# ---- single files

SAID = {
    "labels": ["parotid_left", "Right Parotid"],
    "spacing_mm": [2.5, 2.5, 2.5],
    "window": [16, 16, 16],
    "intensity": {"clip": [-1000, 1000], "mean": -500, "std": 250},
}


def onnx_net(path, dims=3):
    import onnx
    from onnx import TensorProto, helper

    weights = np.array([s for s, _ in SCORES], np.float32).reshape(3, 1, *[1] * dims)
    net = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"])],
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, *"kji"[3 - dims :]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel()),
            helper.make_tensor("b", TensorProto.FLOAT, (3,), [b for _, b in SCORES]),
        ],
    )
    onnx.save(helper.make_model(net, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


@pytest.mark.parametrize("axes", ["SPL", "RAS", "LIA"])
def test_an_onnx_net(tmp_path, case, axes):
    path = onnx_net(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(json.dumps({**SAID, "axes": axes}))
    check(load_foreign(path).predict(case), case)


def test_an_onnx_net_that_sees_slices(tmp_path, case):
    path = onnx_net(tmp_path / "net.onnx", dims=2)
    (tmp_path / "net.json").write_text(json.dumps({**SAID, "window": [1, 32, 32], "dims": 2, "spacing_mm": [3, 2, 2]}))
    check(load_foreign(path).predict(case), case)


def test_torchscript_runs_only_when_trusted(tmp_path, case):
    net = torch.nn.Conv3d(1, 3, 1)
    with torch.no_grad():
        net.weight[:] = torch.tensor([s for s, _ in SCORES]).reshape(3, 1, 1, 1, 1)
        net.bias[:] = torch.tensor([b for _, b in SCORES])
    path = tmp_path / "net.ts"
    torch.jit.trace(net, torch.zeros(1, 1, 16, 16, 16)).save(str(path))
    with pytest.raises(ModelError, match=r"nothing says what this net contours.*net\.json"):
        load_foreign(path, trust=True)
    (tmp_path / "net.json").write_text(json.dumps(SAID))
    with pytest.raises(ModelError, match=r"not run unasked.*--trust"):
        load_foreign(path)
    check(load_foreign(path, trust=True).predict(case), case)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ModelError, match="weights without their net"):
        load_foreign(tmp_path / "net.pt", trust=True)


def test_wrong_settings_beside_a_net(tmp_path):
    path = onnx_net(tmp_path / "net.onnx")
    for change, match in (
        ({"spacing": [1, 1, 1]}, "unknown settings"),
        ({"labels": []}, "list of names"),
        ({"labels": {"1": "a", "3": "b"}}, "without gaps"),
        ({"axes": "LRS"}, "three letters"),
        ({"activation": "relu"}, "softmax or sigmoid"),
        ({"intensity": {"scale": [0, 1]}}, "needs clip"),
        ({"window": [1, 2]}, "cannot be used"),
        ({"threshold": 50}, "threshold is a probability"),
        ({"spacing_mm": [3, 2]}, "three positive"),
        ({"dims": 2}, r"window \[1, j, i\]"),
        ({"context": 1}, "context"),
        ({"overlap": 1.5}, "overlap"),
        ({"intensity": [-1000, 1000]}, "by name"),
    ):
        (tmp_path / "net.json").write_text(json.dumps({**SAID, **change}))
        with pytest.raises(ModelError, match=match):
            load_foreign(path)


def test_a_case_without_the_image_and_a_net_with_other_classes(tmp_path, case):
    path = onnx_net(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(json.dumps({**SAID, "image": "mr"}))
    with pytest.raises(ModelError, match="needs an image 'mr'"):
        load_foreign(path).predict(case)
    (tmp_path / "net.json").write_text(json.dumps({**SAID, "labels": ["a", "b", "c"]}))
    with pytest.raises(ModelError, match="answered in shape"):
        load_foreign(path, rules=Tidy.off()).predict(case)


@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_sigmoid_means_that_structures_may_overlap(tmp_path, case, kind):
    """Class 0 has a chance of one half everywhere, classes 1 and 2 a higher one in their balls: class 0 keeps what it shares with them."""
    if kind == "bundle":
        path = bundle_folder(tmp_path)
        config = json.loads((path / "configs" / "inference.json").read_text())
        config["postprocessing"]["transforms"] = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]
        (path / "configs" / "inference.json").write_text(json.dumps(config))
    else:
        path = onnx_net(tmp_path / "net.onnx")
        said = {"labels": ["background", *SAID["labels"]], "spacing_mm": [3, 2, 2], "activation": "sigmoid"}
        (tmp_path / "net.json").write_text(json.dumps({**SAID, **said}))
    found = load_foreign(path, backend="torch").predict(case)
    left, right = balls()
    assert list(found.masks) == ["background", "Parotid_L", "Parotid_R"]
    assert found.masks["background"].array.all()
    assert dice(found.masks["Parotid_L"].array, left) > 0.99
    assert dice(found.masks["Parotid_R"].array, right) > 0.99


def test_anything_else_is_refused(tmp_path):
    assert not is_foreign(tmp_path)
    with pytest.raises(ModelError, match="no model of a known kind"):
        load_foreign(tmp_path)

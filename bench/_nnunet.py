"""nnU-Net's side of bench/nnunet.py, run by the Python of an environment that has nnunetv2: a dataset in, archives and predictions out.

PYTHON bench/_nnunet.py FOLDER '{"dataset": 901, "models": {"plain": ["nnUNetPlans", ["2d", "3d_fullres"]]}, "steps": 150, "epochs": 2}'

FOLDER/raw holds the dataset as nnU-Net wants it, and FOLDER/new images to draw. For each model FOLDER/PLANS-CONFIGURATION.zip is made by
nnU-Net's own export, and FOLDER/drawn/PLANS-CONFIGURATION holds what its own predictor drew, without mirroring.

nnU-Net's planner and trainer are taken as they are but for sizes: few features, small patches, few iterations with Adam, no augmentation
(which shuts off mirroring too), and all patients both learned from and held back.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    base, asked = Path(sys.argv[1]).resolve(), json.loads(sys.argv[2])
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(base / name)
    os.environ.update(nnUNet_compile="f")
    started = time.perf_counter()
    with (base / "nnunet.log").open("w") as log, contextlib.redirect_stdout(log):
        done = [row for plans, names in asked["models"] for row in work(base, asked["dataset"], plans, names, asked)]
    print(json.dumps({"version": version("nnunetv2"), "seconds": time.perf_counter() - started, "models": done}))


def work(base: Path, dataset: int, plans: str, configurations: list[str], asked: dict[str, int]) -> list[dict[str, object]]:
    """Plan, preprocess, train, export and predict; a row for each model."""
    import torch
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset, preprocess_dataset

    torch.set_num_threads(1)
    os.environ.update(nnUNet_n_proc_DA="1")  # the planner wants one; training then none
    extract_fingerprint_dataset(dataset, num_processes=1, check_dataset_integrity=True, show_progress_bar=False)
    planned = json.loads(json.dumps(planner(plans)(dataset).plan_experiment()))  # as training reads them
    preprocess_dataset(dataset, plans, configurations, num_processes=[1] * len(configurations), show_progress_bar=False)
    return [one(base, planned, configuration, asked) for configuration in configurations]


def planner(plans: str) -> type:
    """nnU-Net's planner of this name with few features and small patches."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.resencUNet_planner import ResEncUNetPlanner

    class Small({"nnUNetPlans": ExperimentPlanner, "nnUNetResEncUNetPlans": ResEncUNetPlanner}[plans]):  # type: ignore[misc]
        def __init__(self, dataset: int) -> None:
            super().__init__(dataset, gpu_memory_target_in_gb=GPU_GB)
            self.UNet_base_num_features = 8
            self.UNet_max_features_2d = self.UNet_max_features_3d = 24

    return Small


GPU_GB = 0.15
"""What nnU-Net plans for: little, so that patches are smaller than patients and have to be stitched."""


def one(base: Path, plans: dict[str, object], configuration: str, asked: dict[str, int]) -> dict[str, object]:
    """Train one configuration, export it, let it predict."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.model_sharing.model_export import export_pretrained_model

    name = str(plans["dataset_name"])
    folder = base / "preprocessed" / name
    everybody = sorted(path.name.removesuffix(".nii.gz") for path in (base / "raw" / name / "labelsTr").glob("*.nii.gz"))
    (folder / "splits_final.json").write_text(json.dumps([{"train": everybody, "val": everybody}]))
    os.environ.update(nnUNet_n_proc_DA="0")  # no other process for what is drawn
    torch.manual_seed(0)
    dataset, asks = json.loads((folder / "dataset.json").read_text()), {**plans, "continue_training": False}
    trainer = make_trainer(asked)(asks, configuration, 0, dataset, torch.device("cpu"))
    trainer.run_training()
    key = f"{plans['plans_name']}-{configuration}"
    (Path(trainer.output_folder) / "validation").mkdir(exist_ok=True)
    (Path(trainer.output_folder) / "validation" / "summary.json").write_text("{}")
    archive = base / f"{key}.zip"
    export_pretrained_model(
        name, str(archive), configurations=(configuration,), trainer="nnUNetTrainer", plans_identifier=str(plans["plans_name"]), folds=(0,)
    )
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
    drawn = base / "drawn" / key
    drawn.mkdir(parents=True)
    images = [[str(path)] for path in sorted((base / "new").glob("*_0000.nii.gz"))]
    outs = [str(drawn / Path(image).name.removesuffix("_0000.nii.gz")) for (image,) in images]
    predictor.predict_from_files_sequential(images, outs)
    patch = predictor.configuration_manager.patch_size
    return {"key": key, "archive": str(archive), "folder": trainer.output_folder_base, "drawn": str(drawn), "patch": list(map(int, patch))}


def make_trainer(asked: dict[str, int]) -> type:
    """nnU-Net's trainer without augmentation, of few iterations; called as nnU-Net's own is, so that it finds the model's class again."""
    import torch
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

    class nnUNetTrainer(nnUNetTrainerNoDA):
        def __init__(self, plans: object, configuration: str, fold: int, dataset_json: object, device: object) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = asked["epochs"], asked["steps"], 1

        def configure_optimizers(self) -> tuple[object, object]:
            """Adam: few steps do."""
            optimizer = torch.optim.Adam(self.network.parameters(), lr=5e-3)
            return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)

    return nnUNetTrainer


if __name__ == "__main__":
    main()

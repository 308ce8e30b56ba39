"""``oncontour models add``: somebody's nnU-Net, or TotalSegmentator's weights, taken over once; ``run --model NAME`` then draws with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oncontour.core.notes import some


@dataclass(frozen=True)
class Added:
    """What was added: the model's name and place, what it draws, its licence, and what is to be known."""

    name: str
    folder: Path
    structures: tuple[str, ...]
    licence: str
    notes: tuple[str, ...]
    named: bool
    """whether ``run --model`` finds it by its name, or by its path alone"""

    def __str__(self) -> str:
        lines = [
            f"{self.name} is in {self.folder}",
            f"It draws {len(self.structures)} structures: {some(self.structures)}.",
            f"Licence: {self.licence}.",
            *(f"remark: {note}" for note in self.notes),
            "Made by somebody else and not tested by oncontour: commission it before use.",
            f"oncontour run CT_FOLDER --out OUT --model {self.name if self.named else self.folder}",
        ]
        return "\n".join(lines)


def add(
    source: Path,
    *,
    name: str | None = None,
    configuration: str | None = None,
    axes: str | None = None,
    images: list[str] | None = None,
    to: Path | None = None,
    overwrite: bool = False,
) -> Added:
    """Take an nnU-Net v2 model over, once, so that 'oncontour run --model NAME' contours with it, without a network.

    SOURCE is a trained model's folder, or the zip that nnUNetv2_export_model_to_zip wrote, or one of TotalSegmentator's zips of weights (as
    Dataset297_TotalSegmentator_total_3mm_1559subj.zip, which becomes total_fast), whose orientation and names are known. It is converted:
    nothing of it is run, and what is kept opens no pickle. It goes to the user's data folder ($XDG_DATA_HOME/oncontour/models, else
    ~/.local/share/oncontour/models), or to the folder that --to names.

    Examples:
        oncontour models add Dataset297_TotalSegmentator_total_3mm_1559subj.zip
        oncontour models add nnUNet_results/Dataset101_Neck/nnUNetTrainer__nnUNetPlans__3d_fullres --axes SAR
        oncontour models add neck.zip --name our-neck --configuration 3d_fullres --to models

    Args:
        source: folder or zip of an nnU-Net v2 model
        name: what the model is to be called; by default as its dataset is
        configuration: which one, where there are several: 2d, 3d_fullres
        axes: which way the images ran that it was trained on, where nothing says it: SAR for NIfTI in RAS, SPL for DICOM, own for the order
            of each case's own file
        images: which image of a case (ct, mr) each channel is, where the model's own names do not tell
        to: another folder for models; the model is then found by its path alone
        overwrite: replace a model of the name
    """
    from oncontour.contour.external.adopt import Wish, adopt
    from oncontour.learn.added import models_folder
    from oncontour.learn.card import shipped

    wish = Wish(name, configuration, axes, images)
    done = adopt(Path(source), to or models_folder(), wish, taken=list(shipped()), overwrite=overwrite)
    return Added(done.folder.name, done.folder, done.structures, done.licence, done.notes, to is None)

"""Images that no scanner made, as DICOM that no viewer and no reader can take for an acquisition: an MR series by a model, a simulated CT.

Sources: DICOM PS3.3 C.12.1.1 (SOP common: Synthetic Data, Contributing Equipment), C.7.6.1.1.4 (derivation, Source Image Sequence),
C.8.3.1 (MR image), A.4.3; PS3.16 CID 7005 (contributing equipment), CID 7202 (source images).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from oncontour.core.geometry import ON_GRID_MM
from oncontour.core.volume import Volume
from oncontour.io.dicom.attributes import fitted, item_of
from oncontour.io.dicom.series_write import write_series
from oncontour.io.dicom.source import DicomSource, SliceRef

SYNTHETIC = "SYNTHETIC, not acquired"
"""How the SeriesDescription begins, in every viewer."""


@dataclass(frozen=True)
class Derivation:
    """What made a series: the model's name, the SHA-256 of its weights, our version, and warnings that whoever opens it must see;
    ``flags``: the gravest of them in a word or two each, for the SeriesDescription."""

    model: str
    sha256: str
    version: str
    warnings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """For the SeriesDescription: that it is synthetic, its flags or that there is a warning, and by what it was made."""
        check = ", ".join(self.flags) or "CHECK, see derivation" * bool(self.warnings)
        return fitted("SeriesDescription", "; ".join(part for part in (SYNTHETIC, check, self.model) if part))

    @property
    def text(self) -> str:
        """For the DerivationDescription."""
        told = f"Image like a T1-weighted MR made from CT by oncontour {self.version}, model {self.model}, weights SHA-256 {self.sha256}. "
        warned = f"WARNING: {'; '.join(self.warnings)}." if self.warnings else ""
        return fitted("DerivationDescription", f"{told}{SYNTHETIC}. Not for dose calculation. {warned}".strip())


def write_derived(volume: Volume, folder: Path | str, source: DicomSource, derivation: Derivation) -> DicomSource:
    """Write ``volume``, made from the CT ``source``, as one MR file a slice into the new ``folder``, and return its identity.

    It lies in the CT's frame of reference and study and says in each slice which CT images it comes from. Values are stored in 16 bits
    as ``write_series`` does. Raises what ``write_series`` raises.
    """
    offsets = source.offsets_mm

    def derived(d: Dataset, k: int, one: SliceRef) -> None:
        at = float(np.dot(one.position_mm, source.normal))
        d.SyntheticData = "YES"
        d.DerivationDescription = derivation.text
        d.ContributingEquipmentSequence = Items([_equipment(derivation)])
        d.SourceImageSequence = Items([_reference(source.slices[n]) for n in _nearest(offsets, at)])

    written = write_series(volume, folder, source=source, modality="MR", description=derivation.title, finishing=derived)
    return replace(written, series=MappingProxyType({"SyntheticData": "YES", "SeriesDescription": derivation.title}))


def write_simulated(ct: Volume, folder: Path | str, patient: Mapping[str, str]) -> DicomSource:
    """Write a CT that no scanner made, as one file a slice that says so into the new ``folder``, and return its identity.

    Its study and frame of reference are new; ``patient`` has the patient's attributes by keyword. Raises what ``write_series`` raises.
    """

    def simulated(d: Dataset, k: int, one: SliceRef) -> None:
        d.SyntheticData = "YES"

    return write_series(ct, folder, patient=patient, description="SIMULATED visit, not acquired", finishing=simulated)


def _nearest(offsets: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]], at: float) -> list[int]:
    """The CT image in the very plane; else the two that it lies between, or the outermost one."""
    away = np.asarray(offsets) - at
    if np.abs(away).min() <= ON_GRID_MM:
        return [int(np.abs(away).argmin())]
    below, above = np.flatnonzero(away < 0), np.flatnonzero(away > 0)
    return [int(side[np.abs(away[side]).argmin()]) for side in (below, above) if side.size]


def _reference(one: SliceRef) -> Dataset:
    purpose = item_of(CodeValue="121322", CodingSchemeDesignator="DCM", CodeMeaning="Source image for image processing operation")
    d = item_of(ReferencedSOPClassUID=one.sop_class_uid, ReferencedSOPInstanceUID=one.sop_instance_uid)
    if one.frame is not None:
        d.ReferencedFrameNumber = one.frame
    d.PurposeOfReferenceCodeSequence = Items([purpose])
    return d


def _equipment(derivation: Derivation) -> Dataset:
    purpose = item_of(CodeValue="109100", CodingSchemeDesignator="DCM", CodeMeaning="Synthesizing Equipment")
    return item_of(
        PurposeOfReferenceCodeSequence=Items([purpose]),
        Manufacturer="oncontour",
        ManufacturerModelName=fitted("ManufacturerModelName", derivation.model),
        SoftwareVersions=fitted("SoftwareVersions", derivation.version),
        ContributionDateTime=f"{datetime.datetime.now():%Y%m%d%H%M%S}",
        ContributionDescription=fitted("ContributionDescription", f"made from CT by a model, weights SHA-256 {derivation.sha256[:16]}"),
    )

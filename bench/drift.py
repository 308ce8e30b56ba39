"""The drift flag of ``oncontour synthesize``: how often it fires on made images that were spoiled on purpose, and on good ones.

    python bench/drift.py [--calibrate 100] [--judge 33] [--model FILE] [--keep FOLDER] [--write]

OpenKBP under $ONCONTOUR_DATA (else ../shared/data), the frozen segmenter hn-organs. Images that are good by construction: the textbook's
curve of each voxel (or what --model makes), with another contrast (gamma 0.85 to 1.18), a bias field of 8 %, in-plane blur of up to 0.6
voxels and noise of 2 % of fat; every third patient's CT is resampled to other voxels first, every third's shifted by part of a voxel.
Training patients calibrate; validation patients judge: each one's image as it is, and with one organ (as it was contoured) grown by 20 %
of its volume, moved by 5 mm or erased (filled with what surrounds it), what lies within 20 mm moving along less and less. --write puts the
limits where the package reads them (src/oncontour/synthesize/drift_limits.json). --keep: figures of each patient, from which a stopped run
goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from scipy import ndimage

from oncontour.commands.synthesize_drift import frozen_segmenter
from oncontour.core.case import Case
from oncontour.core.volume import Volume
from oncontour.io import read
from oncontour.synthesize.drift import Drift, Segment, calibrated, followed, judged, limits_words
from oncontour.synthesize.signal import textbook

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("ONCONTOUR_DATA") or ROOT.parent / "shared" / "data") / "openkbp"
LIMITS = ROOT / "src" / "oncontour" / "synthesize" / "drift_limits.json"
ORGANS = ("Parotid_L", "Brainstem", "Bone_Mandible", "Parotid_R", "SpinalCord")
SPOILED = ("grown by 20 %", "moved by 5 mm", "erased")
REACH_MM = 20.0
Made = Callable[[Case], Volume]


def seen(case: Case, number: int) -> Case:
    """The patient on its own grid, on other voxels, or shifted by part of a voxel, by turns."""
    ct = case.ct.map(lambda a: a.astype(np.float32))
    steps = ct.geometry.spacing_mm
    if number % 3 == 0:
        grid = ct.geometry
    elif number % 3 == 1:
        grid = ct.geometry.resample([steps[0] * 1.1, steps[1] * 0.9, steps[2] * 0.9])
    else:
        fine = ct.geometry.resample([one / 5 for one in steps])
        grid = fine.crop([2, 1, 3], fine.shape).resample(steps)
    return Case(case.id, {"ct": ct.to(grid, fill=-1000, blur=False)})


def good(made: Volume, number: int) -> Volume:
    """An image whose anatomy is that of ``made``: see the module's words."""
    rng, top = np.random.default_rng(number), 1000.0
    part = np.clip(made.array / top, 0, None) ** rng.uniform(0.85, 1.18)
    k, j, i = (np.linspace(-1, 1, n) for n in part.shape)
    tilt = rng.uniform(-1, 1, 3)
    part = part * (1 + 0.08 * (tilt[0] * k[:, None, None] + tilt[1] * j[None, :, None] + tilt[2] * i) / np.abs(tilt).sum())
    sigma = rng.uniform(0, 0.6)
    part = ndimage.gaussian_filter(part, (0, sigma, sigma))
    part = np.where(made.array > 0.02 * top, np.maximum(part + rng.normal(0, 0.02, part.shape), 0), part)
    return Volume((top * part).astype(np.float32), made.geometry)


def spoiled(image: Volume, organ: Volume, how: str, number: int) -> Volume:
    """The image with one organ spoiled, what lies within REACH_MM of it moving along less and less."""
    mask, mm = organ.to(image.geometry, nearest=True).array.astype(bool), np.asarray(image.geometry.spacing_mm)
    if how == "erased":
        wide = ndimage.binary_dilation(mask, iterations=1)
        _, nearest = ndimage.distance_transform_edt(wide, sampling=mm, return_indices=True)
        filled = ndimage.gaussian_filter(image.array[tuple(nearest)], 1.0)
        return Volume(np.where(wide, filled, image.array).astype(np.float32), image.geometry)
    at = np.indices(mask.shape, dtype=np.float64) * mm[:, None, None, None]
    near = np.clip(1 - ndimage.distance_transform_edt(~mask, sampling=mm) / REACH_MM, 0, 1)
    if how.startswith("moved"):
        way = np.random.default_rng(number).normal(size=3)
        back = (5 * way / np.linalg.norm(way))[:, None, None, None] * near
    elif organ_is_long(mask, mm):  # within each slice, about its own middle: a cord does not grow at its ends
        middles = np.stack([at[:, k][:, mask[k]].mean(axis=1) if mask[k].any() else np.full(3, np.nan) for k in range(len(mask))])
        shown = np.flatnonzero(mask.any(axis=(1, 2)))
        middles = middles[shown[np.abs(np.arange(len(mask))[:, None] - shown).argmin(axis=1)]]
        back = (at - middles.T[:, :, None, None]) * (1 - 1.2**-0.5) * near
        back[0] = 0
    else:
        back = (at - at[:, mask].mean(axis=1)[:, None, None, None]) * (1 - 1.2 ** (-1 / 3)) * near
    was = (at - back) / mm[:, None, None, None]
    return Volume(ndimage.map_coordinates(image.array, was, order=1, mode="nearest").astype(np.float32), image.geometry)


def organ_is_long(mask: np.ndarray, mm: np.ndarray) -> bool:
    size = [np.ptp(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))) * mm[axis] for axis in range(3)]
    return size[0] > 3 * max(size[1:])


def patients(part: str, most: int) -> list[Path]:
    return sorted(path for path in (DATA / part).iterdir() if path.is_dir())[:most]


def of_patient(path: Path, segment: Segment, made: Made, number: int, spoil: bool) -> dict[str, list[dict[str, object]]]:
    """What was done -> the drifts that were found."""
    case = read(path)
    shown = seen(case, number)
    image = good(made(shown), number)
    organs = {name: mask for name, mask in segment(shown.ct).items() if name in ORGANS}

    def found(one: Volume) -> list[dict[str, object]]:
        return [asdict(drift) for drift in followed(shown.ct, one, organs)]

    out = {"good": found(image)}
    there = [name for name in ORGANS if name in case.masks]
    for n, how in enumerate(SPOILED if spoil and there else ()):
        name = there[(number + n) % len(there)]
        out[f"{how}|{name}"] = found(spoiled(image, case.mask(name), how, number))
    return out


def figures(
    part: str, most: int, segment: Segment, made: Made, keep: Path | None, spoil: bool
) -> Iterator[tuple[str, dict[str, tuple[Drift, ...]]]]:
    for number, path in enumerate(patients(part, most)):
        kept = keep / f"{part}-{path.name}.json" if keep else None
        if kept and kept.is_file():
            told = json.loads(kept.read_text())
        else:
            told = of_patient(path, segment, made, number, spoil)
            if kept:
                kept.write_text(json.dumps(told))
        yield path.name, {how: tuple(Drift(**one) for one in drifts) for how, drifts in told.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calibrate", type=int, default=100)
    parser.add_argument("--judge", type=int, default=33)
    parser.add_argument("--model", default=None, help="a synthesis model; by default the textbook's curve")
    parser.add_argument("--keep", type=Path, default=None)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if not DATA.is_dir():
        print("not measured, no data folder")
        return 0
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    segment, card = frozen_segmenter("hn-organs", threads=1, any_region=True)
    made = maker(given.model)
    learned = {name: told["good"] for name, told in figures("train", given.calibrate, segment, made, given.keep, False)}
    what = "the textbook's curve" if given.model is None else f"images by {Path(given.model).stem}"
    origin = f"{len(learned)} training patients of OpenKBP, {what} with contrast, bias, blur, noise and grid changed; bench/drift.py"
    limits = calibrated(list(learned.values()), origin=origin)
    print(f"limits from {limits.patients} patients, the worst organ at most {limits.most:.2f} scatters away:")
    for organ in limits.organs:
        low, high, shift, least = limits.within(organ)
        print(f"  {organ}: volume ratio {low:.2f} to {high:.2f}, shift {shift:.1f} mm, likeness {least:.2f}")
    if given.write:
        LIMITS.write_text(json.dumps({card.sha256: limits_words(limits)}, indent=1) + "\n")
    counted: dict[str, list[bool]] = {}
    for _, told in figures("validation", given.judge, segment, made, given.keep, True):
        for how, drifts in told.items():
            what, _, organ = how.partition("|")
            fired = bool(judged(drifts, limits).flagged)
            for row in (what, f"  {what}, {organ}") if organ else (what,):
                counted.setdefault(row, []).append(fired)
    total = [fired for row, all_ in counted.items() if row in SPOILED for fired in all_]
    for row in [*(r for r in counted if not r.startswith(" ")), *sorted(r for r in counted if r.startswith(" "))]:
        print(f"{row}: fires in {sum(counted[row])} of {len(counted[row])}")
    print(f"all spoiled: fires in {sum(total)} of {len(total)}")
    return 0


def maker(model: str | None) -> Made:
    if model is None:
        return lambda case: case.ct.map(lambda hu: np.asarray(1000 * textbook(hu), np.float32))
    from oncontour.synthesize.predict import Synthesizer

    synthesizer = Synthesizer.load(model, threads=1, any_region=True)
    return lambda case: synthesizer.make(case).image


if __name__ == "__main__":
    sys.exit(main())

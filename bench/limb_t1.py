"""How good limb-t1 is on the patients kept apart: every demand on it, met or failed; with --out a copy whose card holds them, and
what the figures of fidelity are in the patients that it learned from, beside which later images are judged.

    python bench/limb_t1.py [COHORT] [--model limb-t1] [--out limb-t1.safetensors]

COHORT: patients with CT and T1-weighted MR on one grid (soft-tissue sarcoma of the limbs), by default sts-ct-mr under $ONCONTOUR_DATA (else
../shared/data). The six that are judged are those of
``papers/pseudomri-2021/run.yaml``: a fixed seed chose them, nothing learned from them or was chosen by them.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from oncontour.commands.train import read_cases
from oncontour.documents import read_yaml
from oncontour.files import writing
from oncontour.io.cohort import Cohort
from oncontour.learn.card import checked_card, find, with_card
from oncontour.ops.body import elsewhere
from oncontour.reproduce.pseudomri_2021 import kept_apart, planned
from oncontour.reproduce.pseudomri_rows import SMOOTHED, TEXTBOOK, of_synthesizer, pair_of, untrained
from oncontour.reproduce.pseudomri_tables import Judged, judged_pair
from oncontour.synthesize.predict import Synthesizer, ranges_of
from oncontour.synthesize.signal import textbook

DATA = Path(os.environ.get("ONCONTOUR_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data") / "sts-ct-mr"
PAPER = Path(__file__).parents[1] / "papers" / "pseudomri-2021" / "run.yaml"
FIGURES = ("mae", "ssim", "psnr_db", "correlation", "gradient_correlation", "sharpness", "body_dice", "ct_body_dice", "checkerboard")
TESTED_ON = "6 patients of the same public set (soft-tissue sarcoma of the limbs), by a fixed seed, never trained or tuned on; mean"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, nargs="?", default=DATA)
    parser.add_argument("--model", default="limb-t1")
    parser.add_argument("--out", type=Path)
    told = parser.parse_args()
    if not told.cohort.is_dir():
        print(f"no patients at {told.cohort}: not measured")
        return
    plan = planned(read_yaml(PAPER)["settings"])
    patients = Cohort.open(told.cohort)
    test = kept_apart([id for id in patients.ids if id not in plan.left_out], plan)
    synthesizer = Synthesizer.load(told.model, threads=1, any_region=True)
    if strange := set(test) & set(synthesizer.card.made.get("trained_on", ())):
        raise SystemExit(f"the model learned from {', '.join(sorted(strange))}")
    pairs = [pair_of(case, plan.shared) for case in read_cases(patients.subset(test))]
    images = {TEXTBOOK: lambda pair: pair.hu.map(textbook), SMOOTHED: untrained(plan.shared), told.model: of_synthesizer(synthesizer)}
    found = {row: [judged_pair(row, pair, image(pair)) for pair in pairs] for row, image in images.items()}
    for row, its in found.items():
        print(row, *(f"{name} {mean(its, name):.4f}" for name in FIGURES), sep="  ")
    lines = demands(found[told.model], found[TEXTBOOK])
    print(*lines, sep="\n")
    for pair in pairs:
        if shown := elsewhere(pair.case.ct, synthesizer.card.region):
            print(f"{pair.case.id} is refused without --any_region: its CT shows {shown}")
    if told.out:
        learned = [id for id in patients.ids if id in {*synthesizer.card.made["trained_on"], *synthesizer.card.made["held_back_patients"]}]
        good = [synthesizer.make(case).fidelity for case in read_cases(patients.subset(learned))]
        write(told.out, told.model, found, lines, ranges_of(good))


def mean(rows: list[Judged], name: str) -> float:
    """Of a figure over patients."""
    return float(np.mean([getattr(one, name) for one in rows]))


def demands(ours: list[Judged], curve: list[Judged]) -> list[str]:
    """Each with the figure that it stands or falls by."""
    least = min(one.fat_over_muscle for one in ours)
    mae = mean(ours, "mae") / mean(curve, "mae")
    gain = mean(ours, "gradient_correlation") - mean(curve, "gradient_correlation")
    sharp, outline = mean(ours, "sharpness"), min(one.ct_body_dice for one in ours)
    board, of_mr = mean(ours, "checkerboard"), mean(ours, "mr_checkerboard")
    asked = [
        (least > 1, f"fat brighter than muscle in every patient: at least {least:.2f} times"),
        (mae <= 1.05, f"MAE at most 1.05 times the textbook curve's: {mae:.3f} times"),
        (gain >= 0.02, f"gradient correlation 0.02 above it: {gain:+.3f}"),
        (0.85 <= sharp <= 1.15, f"sharpness 0.85 to 1.15: {sharp:.3f}"),
        (outline >= 0.97, f"outline the CT's in every patient, Dice 0.97: at least {outline:.4f}"),
        (board <= of_mr, f"no more checkerboard than in real MR ({of_mr:.5f}): {board:.5f}"),
    ]
    return [f"{'holds' if holds else 'FAILS'}: {text}" for holds, text in asked]


def write(out: Path, model: str, found: dict[str, list[Judged]], lines: list[str], usual: dict[str, list[float] | int]) -> None:
    """The model with the figures in its card; its weights stay as they are."""
    path = find(model)
    figures = {row: {name: round(mean(its, name), 4) for name in FIGURES} for row, its in found.items() if row != model}
    own = {name: round(mean(found[model], name), 4) for name in FIGURES}
    metrics = {"tested_on": TESTED_ON, "made_image": own, "beside": figures, "demands": lines, "fidelity": usual}
    card, data = with_card(path.read_bytes(), replace(checked_card(path), metrics=metrics))
    with writing(out) as temporary:
        temporary.write_bytes(data)
    print(f"{out}: {card.name}, sha256 {card.sha256}, {len(data) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()

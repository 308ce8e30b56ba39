"""What a name by TG-263 says of a structure: a target, an organ of several pieces, an outline of the whole patient."""

from __future__ import annotations

import re

from oncontour.sides import side_of

TARGET_ISLAND_CC = 0.2
"""Targets, and organs that are several by name, may have several parts; a part smaller than this is an island all the same."""
_TARGET = re.compile(r"I?[GC]TV|ITV|PTV", re.IGNORECASE)
_SEVERAL = re.compile(r"(Hippocampi|Femora|Humeri|Testes|Ovaries|Bowel|Bag_Bowel|Colon|Ribs?|LN|SeminalVes|Bone_Pelvic)(?![a-z])")
"""What is drawn as several pieces where the patient is well: a collapsed lung or a loop of bowel is no crumb of the other."""
_PAIRED = re.compile(
    r"(Atrium|Axilla|BrachialPlex|Breast|Chestwall|Cochlea|Cornea|Ear_Middle|Eye|Femur|Femur_Head|Fibula|Glnd_Lacrimal|Glnd_Submand|"
    r"Hippocampus|Humerus|Humerus_Head|Joint_TM|Kidney|Lens|Lobe_Temporal|Lung|Musc_Masseter|OpticNrv|Ovary|Parotid|Retina|Testis|Tibia|"
    r"Ureter|Ventricle)(s|es)?(?![a-z])"
)
"""What TG-263 calls by a side: without one, a name speaks of both."""
_WHOLE = re.compile(r"External|Body|Skin|Couch|Support", re.IGNORECASE)


def is_target(name: str) -> bool:
    """Whether TG-263 calls this a target (GTV, CTV, ITV, IGTV, ICTV, PTV and what follows): drawn by intent, not by anatomy."""
    return bool(_TARGET.match(name))


def is_bone(name: str) -> bool:
    """Whether a TG-263 name is that of a bone (Bone_Mandible, Bone_Mandible_L)."""
    return name.startswith("Bone_")


def is_several(name: str) -> bool:
    """Whether an organ comes in several pieces by its name: both of a pair (Lungs, Kidney without a side), bowel, ribs, nodes."""
    return bool(_SEVERAL.match(name)) or (bool(_PAIRED.match(name)) and not side_of(name))


def is_whole(name: str) -> bool:
    """Whether this is an outline of the patient or of the couch, which holds everything else or nothing."""
    return bool(_WHOLE.match(name))

"""Ways to spoil a file. All draw from a ``random.Random`` (hypothesis gives one it can shrink) and work on bytes."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from io import BytesIO
from random import Random

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

Damage = Callable[[bytes, Random], bytes]
INTEGERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, -1e30, 1e300, float("nan"), float("inf"), float("-inf"), 1e-320, 0.5, 65536.5)
TEXTS = (
    *("", " ", "0", "-0", "1", "-1", "2", "1e30", "-1e30", "1e308", "1e999", "1e-320", "nan", "NaN", "inf", "-inf", "0x10", "1_000", "1,5"),
    *("4294967296", "2147483648", "99999999999999999999999999", "1" * 5000, "a", "\x00", "é", "1\\2", "1\\2\\3", "\\", "\\\\\\", "1 2 3"),
)


# ---- any bytes


def bytewise(data: bytes, random: Random) -> bytes:
    """One to six small edits anywhere."""
    out = bytearray(data)
    for _ in range(random.randint(1, 6)):
        random.choice(_EDITS)(out, random)
    return bytes(out)


def _at(out: bytearray, random: Random) -> int:
    """A place; early ones, where headers lie, as often as all others."""
    return random.randint(0, max(0, min(len(out), 600 if random.random() < 0.5 else len(out)) - 1))


def _flip(out: bytearray, random: Random) -> None:
    if out:
        out[_at(out, random)] ^= 1 << random.randint(0, 7)


def _set(out: bytearray, random: Random) -> None:
    if out:
        out[_at(out, random)] = random.choice((0, 1, 0x20, 0x2D, 0x30, 0x39, 0x5C, 0x7F, 0x80, 0xFF))


def _number(out: bytearray, random: Random) -> None:
    """An awkward number over what was there, in any width and order."""
    form = random.choice(("<H", "<I", ">H", ">I", "<Q", "<f", "<d", ">d"))
    value = random.choice(FLOATS) if form[1] in "fd" else random.choice(INTEGERS) & ((1 << 8 * struct.calcsize(form)) - 1)
    if form[1] == "f" and abs(value) > 3e38:
        value = 3e38
    at = _at(out, random)
    out[at : at + struct.calcsize(form)] = struct.pack(form, value)


def _cut(out: bytearray, random: Random) -> None:
    del out[_at(out, random) :]


def _remove(out: bytearray, random: Random) -> None:
    at = _at(out, random)
    del out[at : at + random.choice((1, 2, 4, 8, 64, 1000))]


def _repeat(out: bytearray, random: Random) -> None:
    at = _at(out, random)
    out[at:at] = out[at : at + random.choice((1, 2, 8, 64, 512))] * random.choice((1, 2, 50))


def _noise(out: bytearray, random: Random) -> None:
    at = _at(out, random)
    length = random.choice((1, 4, 16, 128))
    out[at : at + length] = random.getrandbits(8 * length).to_bytes(length, "little")


def _blank(out: bytearray, random: Random) -> None:
    at, length = _at(out, random), random.choice((2, 8, 64, 512))
    out[at : at + length] = bytes([random.choice((0, 0x20, 0xFF))]) * length


_EDITS = (_flip, _set, _number, _cut, _remove, _repeat, _noise, _blank)


# ---- text (NRRD and MetaImage headers, CSV)


def textual(data: bytes, random: Random) -> bytes:
    """Numbers and words exchanged for awkward ones; lines dropped, doubled, swapped or made very long."""
    head, rest = _split_header(data)
    lines = head.split(b"\n")
    for _ in range(random.randint(1, 4)):
        random.choice((_edit_number, _edit_number, _edit_number, _edit_line))(lines, random)
    return b"\n".join(lines) + rest


def _split_header(data: bytes) -> tuple[bytes, bytes]:
    """The text before the voxels of an NRRD or MetaImage file; all of any other."""
    if data.startswith(b"NRRD"):
        end = data.find(b"\n\n")
    else:
        end = data.find(b"\n", data.find(b"ElementDataFile")) if b"ElementDataFile" in data[:4000] else -1
    return (data, b"") if end < 0 else (data[:end], data[end:])


def _edit_number(lines: list[bytes], random: Random) -> None:
    with_numbers = [n for n, line in enumerate(lines[:2000]) if re.search(rb"\d", line)]
    if not with_numbers:
        return
    n = random.choice(with_numbers)
    hits = list(re.finditer(rb"-?\d[\d.eE+-]*", lines[n]))
    hit = random.choice(hits)
    lines[n] = lines[n][: hit.start()] + random.choice(TEXTS).encode() + lines[n][hit.end() :]


def _edit_line(lines: list[bytes], random: Random) -> None:
    n = random.randint(0, max(0, len(lines) - 1))
    what = random.choice(("drop", "double", "swap", "long", "null", "quote", "bom", "field", "comma"))
    if what == "drop":
        del lines[n]
    elif what == "double":
        lines[n:n] = [lines[n]] * random.choice((1, 2, 1000))
    elif what == "swap":
        lines.insert(0, lines.pop(n))
    elif what == "long":
        lines[n] += random.choice((b"9", b",", b" ", b"x")) * random.choice((1000, 2_000_000))
    elif what == "null":
        lines[n] += b"\x00"
    elif what == "quote":
        lines[n] = b'"' + lines[n]
    elif what == "bom":
        lines[0] = random.choice((b"\xef\xbb\xbf", b"\xff\xfe")) + lines[0]
    elif what == "field":
        lines.insert(n, random.choice(_FIELDS))
    else:
        lines[n] = lines[n].replace(b",", random.choice((b";", b"\t", b",,", b"")))


_FIELDS = (
    *(b"encoding: gzip", b"encoding: bzip2", b"encoding: ascii", b"encoding: hex", b"data file: /dev/zero", b"data file: LIST"),
    *(b"byte skip: -1", b"byte skip: 99999999999", b"line skip: 1000000", b"sizes: 100000 100000 100000", b"space: scanner-xyz"),
    *(b"space directions: none (1,0,0) (0,1,0)", b"type: block", b"block size: 1000000", b"ElementDataFile = /dev/zero"),
    *(b"CompressedData = True", b"CompressedDataSize = 99999999999", b"ElementNumberOfChannels = 100000000", b"HeaderSize = -1"),
    *(b"BinaryDataByteOrderMSB = True", b"ElementType = MET_DOUBLE_ARRAY", b"NDims = 9", b"DimSize = 4000000 4000000 4000000"),
)


# ---- NIfTI


def nifti(data: bytes, random: Random) -> bytes:
    """Header fields of a .nii or .nii.gz exchanged, or its compression spoiled."""
    packed = data[:2] == b"\x1f\x8b"
    try:
        out = bytearray(gzip.decompress(data) if packed else data)
    except (OSError, EOFError, zlib.error):  # spoiled before
        return bytewise(data, random)
    for _ in range(random.randint(1, 4)):
        field, form = random.choice(_NIFTI_FIELDS)
        value = random.choice(FLOATS) if form == "f" else random.choice((*INTEGERS[:14], -1, -32768, 5, 300, 512, 1024)) % 65536
        if form == "f" and abs(value) > 3e38:
            value = float("inf")
        out[field : field + struct.calcsize(form)] = struct.pack("<" + form, value)
    if not packed:
        return bytes(out)
    return random.choice((_gzipped, _gzipped, _two_members, _cut_gzip, _bad_check, _bomb, _bzipped))(bytes(out), random)


_NIFTI_FIELDS = (
    *((40 + 2 * n, "H") for n in range(8)),  # dim
    *((70, "H"), (72, "H"), (0, "I"), (344, "I"), (252, "H"), (254, "H"), (112, "f"), (116, "f"), (108, "f"), (108, "f"), (348, "I")),
    *((76 + 4 * n, "f") for n in range(8)),  # pixdim
    *((256 + 4 * n, "f") for n in range(18)),  # quaternion, offsets, sform
)


def _gzipped(data: bytes, random: Random) -> bytes:
    return gzip.compress(data, 1)


def _two_members(data: bytes, random: Random) -> bytes:
    half = random.randint(0, len(data))
    return gzip.compress(data[:half], 1) + gzip.compress(data[half:], 1) + random.choice((b"", b"\x00" * 9, b"rubbish"))


def _cut_gzip(data: bytes, random: Random) -> bytes:
    whole = gzip.compress(data, 1)
    return whole[: random.randint(0, len(whole))]


def _bad_check(data: bytes, random: Random) -> bytes:
    return gzip.compress(data, 1)[:-8] + bytes(8)


def _bomb(data: bytes, random: Random) -> bytes:
    """Some bytes, then 600 MB of zeros in 600 kB."""
    return gzip.compress(data, 1) + _zeros() * 30


@cache
def _zeros() -> bytes:
    return gzip.compress(bytes(20 << 20), 6)


def _bzipped(data: bytes, random: Random) -> bytes:
    return bz2.compress(data)


# ---- DICOM


def dicom(data: bytes, random: Random) -> bytes:
    """Elements with awkward values, lengths, VRs; missing, doubled or deep ones; another transfer syntax than the data's."""
    if random.random() < 0.25:
        return bytewise(data, random)
    if random.random() < 0.15:
        return _spliced(data, random)
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
        for _ in range(random.randint(1, 3)):
            random.choice(_DATASET_EDITS)(dataset, random)
        out = BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()
    except Exception:  # what pydicom itself cannot write
        return bytewise(data, random)


def _datasets(dataset: Dataset) -> list[Dataset]:
    """The dataset and every item in it, some levels down."""
    out = [dataset]
    for element in dataset:
        if element.VR == "SQ":
            for item in list(element.value)[:3]:
                out += _datasets(item)
    return out


def _raw(dataset: Dataset, tag: int, vr: str | None, value: bytes) -> None:
    """Put ``value`` in as it is, unchecked."""
    tag_ = Tag(tag)
    dataset._dict[tag_] = RawDataElement(tag_, vr, len(value), value, 0, vr is None, True)


def _awkward_value(dataset: Dataset, random: Random) -> None:
    """A value that its element may not or should not have."""
    chosen = random.choice(_datasets(dataset))
    elements = [e for e in chosen if e.VR != "SQ" and e.tag.group != 2]
    known = [e for e in elements if e.keyword in KEYWORDS]
    pool = known if known and random.random() < 0.7 else elements
    if not pool:
        return
    element = random.choice(pool)
    if element.VR in ("US", "SS"):
        value = b"".join(struct.pack("<H", random.choice(INTEGERS) & 0xFFFF) for _ in range(random.choice((0, 1, 1, 1, 2, 3))))
    elif element.VR in ("UL", "SL", "FL"):
        value = struct.pack("<I", random.choice(INTEGERS)) * random.choice((0, 1, 1, 2))
    elif element.VR in ("FD",):
        value = struct.pack("<d", random.choice(FLOATS)) * random.choice((0, 1, 3))
    elif element.VR in ("OB", "OW", "UN", "OD", "OF"):
        whole = bytes(element.value) if isinstance(element.value, bytes) else b""
        value = random.choice((b"", whole[:-2], whole[: len(whole) // 2], whole * 2, b"\x00", whole[1:], bytes(300_000)))
    else:
        value = _awkward_text(str(element.value), random)
    _raw(chosen, element.tag, element.VR, value)


def _awkward_text(now: str, random: Random) -> bytes:
    parts = now.strip("[]").replace("'", "").replace(", ", "\\").split("\\")
    if random.random() < 0.7:
        parts[random.randint(0, len(parts) - 1)] = random.choice(TEXTS)
    else:
        parts = random.choice(([], parts[:-1], parts * 2, parts * 300, [random.choice(TEXTS)] * len(parts), ["0"] * len(parts)))
    text = "\\".join(parts).encode("utf-8", "replace")
    return text + b" " * (len(text) % 2)


KEYWORDS = frozenset(
    """Rows Columns NumberOfFrames BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel PhotometricInterpretation
    PlanarConfiguration PixelSpacing ImagePositionPatient ImageOrientationPatient RescaleSlope RescaleIntercept SliceThickness
    SpacingBetweenSlices InstanceNumber SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID Modality
    PatientPosition ImageType GantryDetectorTilt PixelPaddingValue PixelPaddingRangeLimit GridFrameOffsetVector DoseGridScaling DoseUnits
    DoseType DoseSummationType ContourData NumberOfContourPoints ContourGeometricType ROINumber ROIName ReferencedROINumber
    ROIDisplayColor ReferencedSOPInstanceUID SegmentationType SegmentNumber ReferencedSegmentNumber SegmentLabel MaximumFractionalValue
    DimensionIndexValues FrameIncrementPointer PixelData SpecificCharacterSet SmallestImagePixelValue""".split()  # noqa: SIM905
)


def _add_awkward(dataset: Dataset, random: Random) -> None:
    """An element that was not there."""
    keyword, vr = random.choice(
        (
            *(("NumberOfFrames", "IS"), ("GridFrameOffsetVector", "DS"), ("PixelPaddingValue", "US"), ("PixelPaddingRangeLimit", "US")),
            *(("RescaleSlope", "DS"), ("GantryDetectorTilt", "DS"), ("SpacingBetweenSlices", "DS"), ("PlanarConfiguration", "US")),
            *(
                ("SpecificCharacterSet", "CS"),
                ("ModalityLUTSequence", "SQ"),
                ("SharedFunctionalGroupsSequence", "SQ"),
                ("FloatPixelData", "OF"),
            ),
            *(("PerFrameFunctionalGroupsSequence", "SQ"), ("ExtendedOffsetTable", "OV"), ("DoubleFloatPixelData", "OD")),
        )
    )
    value = random.choice(TEXTS).encode() if vr in ("IS", "DS", "CS") else struct.pack("<H", random.choice(INTEGERS) & 0xFFFF)
    _raw(
        random.choice(_datasets(dataset)),
        pydicom.datadict.tag_for_keyword(keyword) or 0,
        vr,
        b"" if vr == "SQ" else value + b" " * (len(value) % 2),
    )


def _drop(dataset: Dataset, random: Random) -> None:
    chosen = random.choice(_datasets(dataset))
    if len(chosen):
        del chosen[random.choice(list(chosen.keys()))]


def _other_vr(dataset: Dataset, random: Random) -> None:
    chosen = random.choice(_datasets(dataset))
    elements = [e for e in chosen if e.VR != "SQ"]
    if elements:
        element = random.choice(elements)
        raw = str(element.value).encode("utf-8", "replace")[:64]
        _raw(
            chosen,
            element.tag,
            random.choice(("UN", "DS", "US", "SQ", "FD", "OB", "UI", "LO", "AT", "SS", "UL", "PN", "UC", "OV")),
            raw + b" " * (len(raw) % 2),
        )


def _other_syntax(dataset: Dataset, random: Random) -> None:
    """A transfer syntax that the pixel data are not in."""
    dataset.file_meta.TransferSyntaxUID = random.choice(SYNTAXES)


SYNTAXES = tuple(
    f"1.2.840.10008.1.2{tail}"
    for tail in ("", ".1", ".2", ".1.99", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81", ".4.90", ".4.91", ".4.100", ".99.7")
)


def _many_items(dataset: Dataset, random: Random) -> None:
    """A sequence whose items come many times over."""
    chosen = random.choice(_datasets(dataset))
    sequences = [e for e in chosen if e.VR == "SQ" and len(e.value)]
    if sequences:
        element = random.choice(sequences)
        element.value.extend([random.choice(list(element.value))] * random.choice((1, 5, 2000)))


def _long_contour(dataset: Dataset, random: Random) -> None:
    """ContourData of another kind: millions of backslashes or points, far points, a line, a point, a spiral."""
    contours = [d for d in _datasets(dataset) if "ContourData" in d]
    if not contours:
        return _awkward_value(dataset, random)
    n = random.choice((0, 1, 2, 4, 5, 3000, 200_000))
    text = random.choice(
        (
            b"\\" * 3 * n,
            b"\\".join([b"1"] * 3 * n),
            b"\\".join([b"1e30\\-1e30\\0", b"-1e30\\2\\0", b"5\\1e30\\0"]),
            b"\\".join(b"%d\\%d\\0" % (k % 977 - 400, k % 613 - 300) for k in range(n)),
            b"\\".join([b"0\\0\\0", b"1e6\\0\\0", b"1e6\\1e6\\0", b"0\\1e6\\0"]),
            b"\\".join([b"0\\0\\0", b"10\\0\\1", b"10\\10\\50"]),
            b"nan\\nan\\nan" * 3,
        )
    )
    return _raw(random.choice(contours), 0x30060050, "DS", text + b" " * (len(text) % 2))


def _deep(dataset: Dataset, random: Random) -> None:
    """Sequences in sequences, many levels."""
    depth = random.choice((5, 70, 500, 20_000))
    start = b"\x06\x30\x39\x00SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    whole = random.random() < 0.5
    _raw(dataset, random.choice((0x30060039, 0x52009229, 0x00081140, 0x00091001)), "UN" if whole else "SQ", start * depth + end * depth)


_DATASET_EDITS = (
    *(_awkward_value,) * 10,
    *(_add_awkward, _add_awkward, _drop, _drop, _other_vr, _other_syntax, _many_items, _long_contour, _long_contour, _deep),
)


def _spliced(data: bytes, random: Random) -> bytes:
    """Raw elements, with lengths that are not theirs, somewhere between two others."""
    places = [m.start() for m in re.finditer(rb"[\x08\x20\x28]\x00..(CS|UI|DS|US|IS|LO)", data, re.S)] or [132]
    at = random.choice(places)
    tag = random.choice(
        (b"\x28\x00\x10\x00", b"\xe0\x7f\x10\x00", b"\x06\x30\x50\x00", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\x08\x00\x05\x00")
    )
    vr = random.choice((b"US", b"DS", b"SQ\x00\x00", b"OW\x00\x00", b"UN\x00\x00", b"UT\x00\x00", b"XX", b"\x00\x00"))
    length = struct.pack("<I" if len(vr) == 4 else "<H", random.choice(INTEGERS) & (0xFFFFFFFF if len(vr) == 4 else 0xFFFF))
    body = random.getrandbits(64).to_bytes(8, "little") * random.choice((0, 1, 100))
    return data[:at] + tag + vr + length + body + data[at:]


def deflated(data: bytes, random: Random) -> bytes:
    """The dataset after the meta group as a deflated stream: whole, cut, or a bomb."""
    at = data.find(b"\x08\x00\x05\x00")
    at = at if at > 132 else min(len(data), 340)
    packed = random.choice((lambda: _deflate(data[at:]), _deflate_bomb, lambda: _deflate(dicom(data, random)[at:])))()
    head = data[:at].replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.1.99", 1)
    return head + packed[: random.choice((len(packed), len(packed) // 2, 10))]


def _deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return packer.compress(body) + packer.flush()


@cache
def _deflate_bomb() -> bytes:
    """600 MB of zeros in 600 kB: one block over and over, then an empty last one (RFC 1951)."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (packer.compress(bytes(20 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 30 + b"\x03\x00"


# ---- model files


def model(data: bytes, random: Random) -> bytes:
    """A model file whose card or table of tensors holds awkward values; the hash of the weights stays right, and none covers the card."""
    if random.random() < 0.15:
        return bytewise(data, random)
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        card = json.loads(header["__metadata__"]["card"])
        card.pop("file_sha256", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # spoiled before
        return bytewise(data, random)
    table = {name: entry for name, entry in header.items() if name != "__metadata__"}
    for _ in range(random.randint(1, 3)):
        _awkward_entry(card if random.random() < 0.75 else table, random)
    text = json.dumps(card)
    if random.random() < 0.1:
        text = random.choice(
            ('{"settings": ' + "[" * 100_000, text[:-1] + ', "name": "b"}', text[: len(text) // 2], "[]", text.replace(",", ",,", 1))
        )
    packed = json.dumps({"__metadata__": {"card": text}, **table}).encode()
    return struct.pack("<Q", random.choice((len(packed), len(packed), len(packed), random.choice(INTEGERS)))) + packed + data[8 + length :]


def _awkward_entry(where: dict[str, object], random: Random) -> None:
    """One value somewhere down in ``where`` exchanged, dropped or added; a later one may change what this one put there, never VALUES."""
    held: dict[str, object] | list[object] = where
    while True:
        keys: list[object] = list(held) if isinstance(held, dict) else list(range(len(held)))
        if not keys:
            return
        key = random.choice(keys)
        inner = held[key]  # type: ignore[index,call-overload]
        if isinstance(inner, dict | list) and inner and random.random() < 0.8:
            held = inner
            continue
        what = random.random()
        if what < 0.1:
            del held[key]  # type: ignore[arg-type,union-attr]
        elif what < 0.15 and isinstance(held, dict):
            held[random.choice(("net", "wings", "widths", "levels", "opinion", "shape"))] = deepcopy(random.choice(VALUES))
        else:
            held[key] = deepcopy(random.choice(VALUES))  # type: ignore[index,call-overload]
        return


VALUES: tuple[object, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 64, 8192, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e-30, 1e300),
    *(float("nan"), float("inf"), "", "a", "builtins:print", "os:system", "unet", "deeplab", "quality_cnn", "dosefusion", "2d", "\ud800"),
    *([], [[]], {}, {"a": {}}, [0], [-1, 2, 3], [8, 8, 8], [8192] * 3, [1] * 5000, ["a", "a"], ["a", None], "x" * 100_000),
)

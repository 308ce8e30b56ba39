"""Compressed and otherwise encoded pixel data: really encoded, then read voxel for voxel."""

from __future__ import annotations

import re
import struct
import tomllib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames

from oncontour.errors import FormatError, LimitError, OncontourError
from oncontour.io.dicom.encapsulated import _PLUGINS, MAX_SHRUNK
from oncontour.io.dicom.header import _inflated_last
from oncontour.io.dicom.series import read_series
from tests.dicom_cases import make_series
from tests.io.test_series_enhanced import enhanced

SYNTAXES = {
    "implicit little endian": "1.2.840.10008.1.2",
    "big endian": "1.2.840.10008.1.2.2",
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": "1.2.840.10008.1.2.5",
    "JPEG lossless": "1.2.840.10008.1.2.4.57",
    "JPEG lossless, first order": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
}
COMPRESSED = [name for name in SYNTAXES if name[:3] in ("RLE", "JPE")]


def noisy(points_mm: np.ndarray) -> np.ndarray:
    """Values over the whole 16 bits of a CT, different in every voxel."""
    rng = np.random.default_rng(abs(int(points_mm.sum() * 1000)) % 2**32)
    return rng.integers(-1000, 3000, points_mm.shape[:-1]).astype(float)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", SYNTAXES)
def test_values_come_back_exactly(tmp_path: Path, name: str, signed: bool) -> None:
    written = make_series(
        tmp_path,
        image=noisy,
        rows=33,
        columns=45,
        offsets=[0, 2, 4],
        syntax=SYNTAXES[name],
        signed=signed,
        intercept=0 if signed else -1024,
    )
    assert str(dcmread(written.paths[0]).file_meta.TransferSyntaxUID) == SYNTAXES[name]
    volume, _, notes = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored).astype(int) - (0 if signed else 1024))
    assert notes == ()


@pytest.mark.parametrize("name", COMPRESSED)
def test_twelve_bits_come_back_exactly(tmp_path: Path, name: str) -> None:
    written = make_series(tmp_path, image=noisy, offsets=[0, 2], syntax=SYNTAXES[name], bits_stored=12)
    volume, _, _ = read_series(tmp_path)
    assert np.array_equal(volume.array, np.array(written.stored).astype(int) - 1024)


def test_lossy_jpeg_is_read_with_a_note(tmp_path: Path) -> None:
    from io import BytesIO

    from PIL import Image
    from pydicom.encaps import encapsulate

    written = make_series(tmp_path, image=lambda p: p[..., 0] * 3 + 100, modality="MR", intercept=0, offsets=[0, 2])
    for path, stored in zip(written.paths, written.stored, strict=True):
        stream = BytesIO()
        Image.fromarray(stored.astype(np.uint8)).save(stream, "JPEG", quality=95)
        d = dcmread(path)
        d.BitsAllocated, d.BitsStored, d.HighBit = 8, 8, 7
        d.PixelData = encapsulate([stream.getvalue()])
        d.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.50"
        d.save_as(path)
    volume, _, notes = read_series(tmp_path)
    assert np.abs(volume.array - np.array(written.stored).astype(int)).max() <= 3
    assert notes == ("images were compressed with loss: values are not those the scanner measured",)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("restart", [False, True])
def test_every_predictor_of_lossless_jpeg(predictor: int, restart: bool) -> None:
    """Against an encoder written here from T.81 annex H, as no tool at hand writes predictors other than 1."""
    from oncontour.io.dicom.entropy import code_table, lossless_jpeg

    rng = np.random.default_rng(predictor)
    image = rng.integers(0, 65536, (9, 13)).astype(np.uint16)
    image[3:6] = rng.integers(0, 4, (3, 13))
    counts, values = bytes([0] * 4 + [17] + [0] * 11), bytes(range(17))  # every size has a code of 5 bits: its number
    data = _encoded(image, predictor, 3 if restart else 0)
    out = np.zeros_like(image)
    assert lossless_jpeg(np.frombuffer(data, np.uint8), code_table(counts, values), predictor, 1 << 15, 3 if restart else 0, out) == 9
    assert np.array_equal(out, image)


def _predict(x: np.ndarray, j: int, i: int, predictor: int, first: bool) -> int:
    if first:
        return 1 << 15 if i == 0 else int(x[j, i - 1])
    if i == 0:
        return int(x[j - 1, 0])
    a, b, c = int(x[j, i - 1]), int(x[j - 1, i]), int(x[j - 1, i - 1])
    return [a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1][predictor - 1]


def _encoded(image: np.ndarray, predictor: int, restart_rows: int) -> bytes:
    out, bits = b"", ""

    def flush(bits: str) -> bytes:
        bits += "1" * (-len(bits) % 8)
        raw = bytes(int(bits[n : n + 8], 2) for n in range(0, len(bits), 8))
        return raw.replace(b"\xff", b"\xff\x00")

    for j in range(image.shape[0]):
        first = j == 0 or (restart_rows > 0 and j % restart_rows == 0)
        if first and j:
            out, bits = out + flush(bits) + bytes([0xFF, 0xD0 + (j // restart_rows - 1) % 8]), ""
        for i in range(image.shape[1]):
            difference = (int(image[j, i]) - _predict(image, j, i, predictor, first)) % 65536
            difference -= 65536 if difference > 32768 else 0
            size = abs(difference).bit_length()
            bits += f"{size:05b}"
            if 0 < size < 16:
                bits += f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}"
    return out + flush(bits) + b"\xff\xd9"


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_file_cut_short_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    written = make_series(tmp_path, image=noisy, offsets=[0, 2, 4], syntax=SYNTAXES[name])
    content = written.paths[1].read_bytes()
    for size in (len(content) - 20, len(content) - 400):
        written.paths[1].write_bytes(content[:size])
        with pytest.raises(FormatError) as error:
            read_series(tmp_path)
        assert written.paths[1].name in str(error.value)


@pytest.mark.parametrize("name", [n for n in COMPRESSED if n != "RLE"])
def test_a_stream_of_another_size_than_the_header_says_is_not_decoded(tmp_path: Path, name: str) -> None:
    written = make_series(tmp_path, image=noisy, offsets=[0, 2], syntax=SYNTAXES[name])
    for path in written.paths:
        d = dcmread(path)
        d.Rows = 64
        d.save_as(path)
    with pytest.raises(FormatError, match=r"compressed image is 32x40x1.*header says 64x40x1"):
        read_series(tmp_path)


def test_a_transfer_syntax_that_is_not_read_is_named(tmp_path: Path) -> None:
    written = make_series(tmp_path, offsets=[0, 2])
    for path in written.paths:
        d = dcmread(path)
        content = path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0")
        path.write_bytes(content)
        assert d.Rows == 32
    with pytest.raises(FormatError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.9 is not read"):
        read_series(tmp_path)


def test_a_deflate_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncontour.io.dicom.header.MAX_INFLATED_BYTES", 100_000)
    make_series(tmp_path, rows=300, columns=300, offsets=[0, 2], syntax=SYNTAXES["deflated"])
    with pytest.raises(LimitError, match="inflates to more than"):
        read_series(tmp_path)


@pytest.mark.parametrize("name", COMPRESSED)
def test_damaged_streams_never_raise_anything_else(tmp_path: Path, name: str) -> None:
    written = make_series(tmp_path, image=noisy, offsets=[0, 2], syntax=SYNTAXES[name])
    path = written.paths[1]
    content = path.read_bytes()
    start = content.rindex(b"\xe0\x7f\x10\x00")
    rng = np.random.default_rng(7)
    for _ in range(30):
        damaged = bytearray(content)
        for at in rng.integers(start + 12, min(len(content), start + 12 + int(rng.choice([120, 100000]))), int(rng.choice([1, 3, 12]))):
            damaged[at] = int(rng.choice([0, 255, 128, rng.integers(256)]))
        path.write_bytes(damaged)
        with suppress(OncontourError):
            assert read_series(tmp_path)[0].array.shape == (2, 32, 40)


def test_every_decoder_is_a_dependency_of_its_own() -> None:
    """Not one that comes along with something else today."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {re.split(r"[<>=!\[]", line)[0].lower() for line in project["dependencies"]}
    assert set(_PLUGINS.values()) <= named


# ---- images that shrink to nothing


def air(points_mm: np.ndarray) -> np.ndarray:
    return np.full(points_mm.shape[:-1], -1000.0)


SHRINKING = ("JPEG-LS", "JPEG 2000")
"""Encodings by which an image of air shrinks to a few hundred bytes, however large it is."""


@pytest.mark.parametrize("name", SHRINKING)
def test_a_series_of_air_is_read(tmp_path: Path, name: str) -> None:
    """At 1024 x 1024 a real slice of nothing but padding is 1000 times smaller than its pixels."""
    written = make_series(tmp_path, image=air, rows=1024, columns=1024, offsets=[0, 2, 4], syntax=SYNTAXES[name])
    assert max(path.stat().st_size for path in written.paths) < 2 * 1024 * 1024 // MAX_SHRUNK
    volume, _, notes = read_series(tmp_path)
    assert volume.array.shape == (3, 1024, 1024)
    assert (volume.array == -1000).all()
    assert notes == ()


@pytest.mark.parametrize("name", SHRINKING)
def test_many_large_images_of_next_to_no_bytes_are_refused(tmp_path: Path, name: str) -> None:
    """17 files of 2 kB each would be 570 MB of pixels."""
    (path,) = make_series(tmp_path, image=air, rows=4096, columns=4096, offsets=[0], syntax=SYNTAXES[name]).paths
    dataset = dcmread(path)
    for n in range(1, 17):
        dataset.SOPInstanceUID, dataset.ImagePositionPatient = f"1.2.3.{n}", [0, 0, 2 * n]
        dataset.save_as(tmp_path / f"{n}.dcm")
    with pytest.raises(
        LimitError, match=f"{17 * 4096**2} pixels in compressed images of less than 1/1000 of their size; at most 268435456"
    ):
        read_series(tmp_path)


def _stream(path: Path) -> tuple[Dataset, bytearray]:
    dataset = dcmread(path)
    return dataset, bytearray(next(generate_frames(dataset.PixelData, number_of_frames=1)))


def _put(path: Path, dataset: Dataset, stream: bytes) -> None:
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset.save_as(path)


@pytest.mark.parametrize(("levels", "exponents", "packets"), [(5, 0x11, 87360), (0, 0x00, 262144)])
def test_more_packets_than_bytes_are_not_made_room_for(tmp_path: Path, levels: int, exponents: int, packets: int) -> None:
    """Precincts of 2 x 2 coefficients (4^8 + 4^7 + .. + 4^3 of them), or of one: at 4096 x 4096 gigabytes and minutes for 360 bytes."""
    paths = make_series(tmp_path, image=air, rows=512, columns=512, offsets=[0, 2], syntax=SYNTAXES["JPEG 2000"]).paths
    dataset, stream = _stream(paths[0])
    at = stream.find(b"\xff\x52")
    length = int.from_bytes(stream[at + 2 : at + 4], "big")
    style = stream[at + 4 : at + 2 + length]
    style[0], style[5] = style[0] | 1, levels
    style += bytes([exponents] * (levels + 1))
    stream[at : at + 2 + length] = b"\xff\x52" + (len(style) + 2).to_bytes(2, "big") + style
    _put(paths[0], dataset, stream)
    with pytest.raises(FormatError, match=rf"JPEG 2000 image of \d+ bytes promises {packets} packets"):
        read_series(tmp_path)


def test_an_image_without_some_of_its_tiles_is_refused(tmp_path: Path) -> None:
    """What the decoder leaves at 0 where a tile is not there would be -1024 HU."""
    paths = make_series(tmp_path, image=noisy, rows=32, columns=40, offsets=[0, 2], syntax=SYNTAXES["JPEG 2000"]).paths
    dataset, stream = _stream(paths[0])
    at = stream.find(b"\xff\x51")
    stream[at + 22 : at + 30] = struct.pack(">II", 20, 16)  # half as wide and high: four tiles, of which one is there
    _put(paths[0], dataset, stream)
    with pytest.raises(FormatError, match="JPEG 2000 image holds 1 of 4 tiles: cut short"):
        read_series(tmp_path)


def test_a_deflated_file_is_inflated_once_for_all_its_frames(tmp_path: Path) -> None:
    stored = enhanced(tmp_path, [0.0, 2.0, 4.0, 6.0, 8.0], syntax=SYNTAXES["deflated"])
    before = _inflated_last.cache_info()
    assert np.array_equal(read_series(tmp_path)[0].array, stored)
    after = _inflated_last.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 4)

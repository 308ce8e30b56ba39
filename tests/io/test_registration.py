"""Registrations in DICOM: which way they go, by points; what is written is read back; what makes no sense is refused."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from oncontour.core.geometry import Geometry
from oncontour.core.volume import Volume
from oncontour.errors import FormatError, GeometryError, InputError
from oncontour.io.dicom.header import MAX_HEADER_VALUE_BYTES, read_header
from oncontour.io.dicom.registration import SPATIAL, read_deformable, read_spatial, write_deformable
from oncontour.io.dicom.series_write import write_series
from oncontour.io.dicom.source import DicomSource
from tests.core.test_geometry import rotation
from tests.dicom_cases import save

GRID = Geometry.regular((3, 4, 5), (3.0, 2.0, 1.5), (-10.0, 20.0, 30.0), rotation((0.1, 0.2, -0.1)))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[DicomSource, DicomSource]:
    """The identities of a daily and of a planning CT, each with a frame of reference of its own."""
    image = Volume(np.zeros((4, 8, 8), np.int16), Geometry.regular((4, 8, 8)))
    daily, planning = (
        write_series(image, tmp_path / name, patient={"PatientID": "P1", "PatientName": "A^B"}) for name in ("daily", "planning")
    )
    return daily, planning


def field(grid: Geometry = GRID) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.normal(0, 5, (3, *grid.shape)).astype(np.float32), grid)


def test_points_go_from_registered_to_source_by_pencil(tmp_path: Path, pair: tuple[DicomSource, DicomSource]) -> None:
    """D is (7, 0, 0) at the grid's second point along x alone; M_pre lifts by 100 mm, M_post turns x to y: M_post(M_pre(P) + D(P))."""
    grid = Geometry.regular((2, 2, 3), (4.0, 3.0, 2.0), (10.0, 20.0, 30.0))
    u = np.zeros((3, 2, 2, 3), np.float32)
    u[0, 0, 0, 1] = 7
    path = write_deformable(Volume(u, grid), tmp_path / "reg.dcm", registered=pair[0], source=pair[1])
    d = pydicom.dcmread(path)
    item = d.DeformableRegistrationSequence[0]
    vectors = item.DeformableRegistrationGridSequence[0]
    assert list(vectors.GridDimensions) == [3, 2, 2]
    assert list(vectors.GridResolution) == [2, 3, 4]
    assert np.frombuffer(vectors.VectorGridData, "<f4")[:6].tolist() == [0, 0, 0, 7, 0, 0]  # x fastest, a triple each
    item.PreDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = [
        1,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        1,
        100,
        0,
        0,
        0,
        1,
    ]
    item.PostDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = [
        0,
        -1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        1,
    ]
    d.save_as(path)
    found = read_deformable(path)
    assert (found.registered, found.source) == (pair[0].frame_of_reference_uid, pair[1].frame_of_reference_uid)
    assert np.allclose(found.to_source((12, 20, 30)), (-20, 19, 130))
    assert np.allclose(found.to_source((11, 20, 30)), (-20, 14.5, 130))  # half-way from (10, 20, 30), where D is 0
    assert np.allclose(found.displacement(grid).array[:, 0, 0, 1], (-32, -1, 100))
    assert np.isnan(found.to_source((0, 0, 0))).all()  # beyond the grid


def test_what_is_written_is_read_back(tmp_path: Path, pair: tuple[DicomSource, DicomSource], dciodvfy: Callable[[Path], list[str]]) -> None:
    left_handed = Geometry.regular(GRID.shape, GRID.spacing_mm, GRID.origin_mm, GRID.axes * [[-1.0], [1.0], [1.0]])
    for grid in (GRID, left_handed):
        u = field(grid)
        path = write_deformable(u, tmp_path / "reg.dcm", registered=pair[0], source=pair[1], description="to the planning CT")
        assert dciodvfy(path) == []
        assert np.allclose(read_deformable(path).displacement(grid).array, u.array, atol=1e-4)
        assert pydicom.dcmread(path).PatientID == "P1"


def test_an_undefined_triple_is_undefined_whole(tmp_path: Path, pair: tuple[DicomSource, DicomSource]) -> None:
    u = field().array.copy()
    u[1, 1, 2, 3] = np.nan
    found = read_deformable(write_deformable(Volume(u, GRID), tmp_path / "reg.dcm", registered=pair[0], source=pair[1])).displacement(GRID)
    assert np.isnan(found.array).sum() == 3
    assert np.isnan(found.array[:, 1, 2, 3]).all()


def spatial(path: Path, items: dict[str, list[list[float]]], frame: str = "1.2.3") -> Path:
    """A Spatial Registration as other programs write it: of each frame matrices, row by row."""
    d = Dataset()
    d.SOPClassUID, d.SOPInstanceUID, d.FrameOfReferenceUID, d.Modality = SPATIAL, generate_uid(), frame, "REG"
    d.RegistrationSequence = []
    for uid, matrices in items.items():
        item, inner = Dataset(), Dataset()
        item.FrameOfReferenceUID = uid
        inner.MatrixSequence = []
        for matrix in matrices:
            one = Dataset()
            one.FrameOfReferenceTransformationMatrix = [f"{v:.8g}" for v in matrix]
            one.FrameOfReferenceTransformationMatrixType = "RIGID"
            inner.MatrixSequence.append(one)
        item.MatrixRegistrationSequence = [inner]
        d.RegistrationSequence.append(item)
    save(d, path)
    return path


DEFORMABLE_BY_PLASTIMATCH = (
    "c-qBP&2AJ&5H7DBGeLGT1`=6O6it+KTHV$E7nsG1VUx9I@vsLZBpa~@kU+8o55ObvM)<@zFA#|*vGetA+un?0ER;mds8wHgS66-YGd)CK_8APfc6yML(F*+m"
    "*`p<D?k0(6sRub3{zyu&2u2Der3}IfB@BiV&I#S4W$4_V>#!5h650hRjTS+$pKAuqT5}LeTdjri(MAs)CA_lUd-y3~<yOa2nknqvIAg&+dGM@pRthcBa3VnG"
    "CbbVrYPPqB?fzhE=h5%`U{MwH6>YWGY1lUV!@UY-3s@WU3u4JmDUJnBKH4EF==&>UEok#Uh_#@q!{BGk6N6tm>oPM_S?Vmuh&9Or#I{0v_wFOkLmD+}G=BN?"
    "^_v&3p1yhZ9Bc1ryqomOa;`7SQIq8DEDy{1{=4$x+3z;mheRiMj!)=gk_G+t4{PI%$?%6uv&OJKfku5v&P)tgHEgWW&akvz>!=)S$I&^f1MBFJyWo#c)<34E"
    "JU;nzCM)`eK5Z90;w0M;WYkVMWrAhaER9hr#H1VH>)h`D8)YJ*VhDkivQ}!XWpu_$tGxEc21L#rKR-(4ozl)4>%3K#qt@25wV1-6S5YgEoObP&c*ncfslVIo"
    "KHh02ZB@e8sJTJokqOS)D4kV-V+`1lv;HipM!)r_sWvf59kfXm<SN+VW0Y8ZnELU-c3V}neg$v#62zSMV8|{6<U<A*m|e<?j3^VzH;@0{eQ^$vm9sCVq7B>x"
    "N$y?2E=B_`pafIsN@n9wCNPW!Z4<q=2KJ}8ce=eYo!y6@tQZ;{1yjaJry_a~EftOQhB<gt3&0qf;^ykwu83*S{zSi~bkCkAe1`NXs>nmjfkEDpmxBvB)s(K`"
    "Z?Hxy=#pic{|Tn(@9n{6{%5Sz8Dv@1Q~DY=FY>z7{lC1uvoNU_-~y&Q=XysOr%}~;9r7UKdSUI%W*&8xZ}Uj_=v40r_WJp3#<O!7*9&;Y=lvWXWi0!d4{+Vj"
    "e1OOObM9w0X|8h`<3T_3N%`n^zr-nhd!f#Uw6?s}uF~G{{%}yO$`7b#>Zn<n{x&{it-9#B{6d}&X??ltxvSHi{{^44;;;"
)
"""Of (i + j / 2, j - 2 k, 10 k + i j) mm on 2 x 3 x 4 voxels (k, j, i) of 3 x 2 x 2.5 mm at (-10, 20, 30), by plastimatch 1.10.0
(xf-convert with --fixed-rcs and --moving-rcs), deflated."""
RIGID_BY_PLASTIMATCH = (
    "c-qZWZA(;95FS^Pn`B(=1&Kb~=yQiTbKbv5=4NiK-p$(vfnX9*g2jUNy`Rvp>T`b}=$B~EaTk*{v#6-ETxRE-IWy19JadTt?P_<H*IJPM?i783Y|#YO_p-#A"
    "XhHTnH%Ti|(X!Ia9F<dAS$tY~uXKwhVY4{25wBpSjE~ILsHh|iEu#@*Br0v3#ifv33a~NC84gh+P6;np$0B7dpUoemkdPw;G0d8kQTg*K!sZG!t0mPdE1hPm"
    "y}b71(H2lt1zn)!W`;UVz17*M;I@Fb_EJH@;<c7k;O3JxqJplUn`=P}e<0U_sxbt&pl1ZP$M$)IOpl})$sTge@;P#wqK*3xkmrE9^(E@<Ztv~yyxHD=@fv#{"
    "sJEW&%5rGWWw*|9aU=)j@ccu0`tG&4<}uMB*1;it$+Dn_-`VTU^*cAtteU`k9~O7dsF_U>yH>2T##><*j7i#y@shlECW=WOy^i7FaP~_k<-y_SBU#a9`mtYd"
    "#Iv{<IT^3Lw$X_gVQaOHDcdH*`sVlVW|@KL6k`;vonvDRCvP1)9Zaw;B6E@S>sjjHweik6ADniQjB!DngNk@TC!+&uI_|f`ueUx!OY8Oev$eY4R3&0{>v`&R"
    "y@*c+lNJpN8=UYFKTEm`zO|^X7NBGXEl>qH4Rjbr#_r?H$JLdls%Z8c+!7eTd<Z}&K1S4oqmPK4>%s|bLi>jK|K7wgGAoZJrlL8#1X*sJgDxctEPw=8V5Nxl"
    "XcG`73)-ZBKw#y7ipg=V{5jtjPx&6u%y;%KO)fXnw9$FcX;;(yk=jj;&YL{;{lZ=~&X)nrPM)3$nrK$heQ_AGf?Cj~2yZW5kEw}nUDDH?y?5KY)za?HtG91n"
    "zTF@9dba+vwbXbtKz?mKdz~=P7|&!mSdkdOeEhMNey5i2iB&>K&c(q1qd~b!M{DyAD8>QL)8?HMhsWk4tDvF-*c11T|L9{+TAw)luX-`mzXAq635E"
)
"""Of the map from fixed to moving that turns by 2 asin(0.1) about z and then shifts by (5, -7, 11) mm."""


def theirs(path: Path, text: str) -> Path:
    path.write_bytes(zlib.decompress(base64.b85decode(text)))
    return path


def test_what_plastimatch_writes_is_read_as_it_means_it(tmp_path: Path) -> None:
    """Its fields say where in the moving image a point of the fixed one lies, as ours do; its matrices come back the same way round."""
    grid = Geometry.regular((2, 3, 4), (3, 2, 2.5), (-10, 20, 30))
    k, j, i = np.indices(grid.shape)
    found = read_deformable(theirs(tmp_path / "dro.dcm", DEFORMABLE_BY_PLASTIMATCH))
    assert np.allclose(found.displacement(grid).array, np.stack([i + 0.5 * j, j - 2.0 * k, 10 * k + i * j]), atol=1e-5)
    rigid = read_spatial(theirs(tmp_path / "sro.dcm", RIGID_BY_PLASTIMATCH))
    (moving,) = (uid for uid in rigid.matrices if uid != rigid.frame)
    expected = [[0.98, -0.198997, 0, 5], [0.198997, 0.98, 0, -7], [0, 0, 1, 11], [0, 0, 0, 1]]
    assert np.allclose(rigid.between(rigid.frame, moving), expected, atol=1e-5)


SHIFT = [1, 0, 0, 10, 0, 1, 0, -5, 0, 0, 1, 3, 0, 0, 0, 1]
TURN = [0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
NONE = np.eye(4).ravel().tolist()


def test_a_deformation_as_fine_as_a_ct_comes_back(tmp_path: Path, pair: tuple[DicomSource, DicomSource]) -> None:
    """36 MB of vectors: more than any other value of a header may have."""
    vectors = np.zeros((3, 12, 500, 500), np.float32)
    vectors[:, 11, 499, 498] = 1, 2, 3
    large = Volume(vectors, Geometry.regular((12, 500, 500)))
    path = write_deformable(large, tmp_path / "reg.dcm", registered=pair[0], source=pair[1])
    assert path.stat().st_size > MAX_HEADER_VALUE_BYTES
    found = read_deformable(path).vectors
    assert found.geometry.same_grid(large.geometry)
    assert np.array_equal(found.array, vectors)


def test_a_value_that_is_too_long_is_refused_by_name(tmp_path: Path, pair: tuple[DicomSource, DicomSource]) -> None:
    path = write_deformable(field(), tmp_path / "reg.dcm", registered=pair[0], source=pair[1])
    with pytest.raises(FormatError, match=r"DeformableRegistrationSequence has \d+ bytes, at most 100 are read"):
        read_header(path, ("SOPClassUID", "DeformableRegistrationSequence"), most_bytes=100)


def test_a_rigid_registration_takes_other_frames_to_its_own(tmp_path: Path) -> None:
    """The planning frame 1.2.3 is the object's own; a point (1, 2, 3) of the daily frame, turned and then shifted, lies at (8, -4, 6)."""
    found = read_spatial(spatial(tmp_path / "reg.dcm", {"1.2.3": [NONE], "4.5.6": [TURN, SHIFT]}))
    there = found.between("4.5.6", "1.2.3")
    assert np.allclose(there @ (1, 2, 3, 1), (8, -4, 6, 1))
    assert np.allclose(found.between("1.2.3", "4.5.6") @ (8, -4, 6, 1), (1, 2, 3, 1))
    assert np.allclose(found.between("1.2.3", "1.2.3"), np.eye(4))
    with pytest.raises(InputError, match=r"holds the frames .*, not 7"):
        found.between("7.8", "1.2.3")


def test_registrations_that_make_no_sense_are_refused(tmp_path: Path, pair: tuple[DicomSource, DicomSource]) -> None:
    path = write_deformable(field(), tmp_path / "reg.dcm", registered=pair[0], source=pair[1])
    with pytest.raises(FormatError, match="no Spatial Registration: of the SOP class 1"):
        read_spatial(path)
    with pytest.raises(InputError, match=r"0 deformations to 9\.9"):
        read_deformable(path, "9.9")
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(FormatError, match="no DICOM file"):
        read_deformable(tmp_path / "text.dcm")
    with pytest.raises(FormatError, match="no matrix that a patient can follow"):
        read_spatial(spatial(tmp_path / "mirror.dcm", {"4.5.6": [np.diag([-1, 1, 1, 1]).ravel().tolist()]}))
    with pytest.raises(FormatError, match="no matrix between frames"):
        read_spatial(spatial(tmp_path / "none.dcm", {}))
    d = pydicom.dcmread(path)
    grid = d.DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
    axes = list(grid.ImageOrientationPatient)
    grid.ImageOrientationPatient = [2, 0, 0, 0, 2, 0]
    d.save_as(path)
    with pytest.raises(FormatError, match="no two unit directions at right angles"):
        read_deformable(path)
    grid.ImageOrientationPatient = axes
    grid.VectorGridData = grid.VectorGridData[:-12]
    d.save_as(path)
    with pytest.raises(FormatError, match=r"708 bytes of vectors, 5 x 4 x 3 need 720"):
        read_deformable(path)
    del grid.GridResolution
    d.save_as(path)
    with pytest.raises(FormatError, match="lacks its size, place, orientation or resolution"):
        read_deformable(path)
    with pytest.raises(GeometryError, match="a displacement is"):
        write_deformable(Volume(np.zeros(GRID.shape), GRID), path, registered=pair[0], source=pair[1])


def test_within_one_study(tmp_path: Path, pair: tuple[DicomSource, DicomSource], dciodvfy: Callable[[Path], list[str]]) -> None:
    assert pair[0].study_uid != pair[1].study_uid
    path = write_deformable(field(), tmp_path / "reg.dcm", registered=replace(pair[0], study_uid=pair[1].study_uid), source=pair[1])
    assert dciodvfy(path) == []
    assert len(pydicom.dcmread(path).ReferencedSeriesSequence) == 2

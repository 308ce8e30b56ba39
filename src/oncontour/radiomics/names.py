"""What a feature is called: the short name of a column, the permanent IBSI identifier, and words.

Source: IBSI reference manual, arXiv 1612.07003v11, chapter 3; every family, feature and way of aggregation has a four-character identifier
there. Short names follow the tags of the IBSI consensus tables (``cm_joint_max_3D_comb``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

FAMILIES: dict[str, tuple[str, str]] = {
    "morph": ("HCUG", "morphology"),
    "loc": ("9ST6", "local intensity"),
    "stat": ("UHIW", "intensity statistics"),
    "ih": ("ZVCW", "intensity histogram"),
    "ivh": ("P88C", "intensity-volume histogram"),
    "cm": ("LFYI", "grey level co-occurrence"),
    "rlm": ("TP0I", "grey level run length"),
    "szm": ("9SAK", "grey level size zone"),
    "dzm": ("VMDZ", "grey level distance zone"),
    "ngt": ("IPET", "neighbourhood grey tone difference"),
    "ngl": ("REK0", "neighbouring grey level dependence"),
}
"""Start of a short name -> (identifier, words)."""

DIRECTED = {
    "2D_avg": ("BTW3", "2D, averaged over slices and directions"),
    "2D_comb": ("SUJT", "2D, directions of a slice merged, averaged over slices"),
    "2_5D_avg": ("JJUI", "2.5D, slices of a direction merged, averaged over directions"),
    "2_5D_comb": ("ZW7Z", "2.5D, all merged"),
    "3D_avg": ("ITBB", "3D, averaged over directions"),
    "3D_comb": ("IAZD", "3D, all merged"),
}
"""Ways to aggregate matrices that have a direction (co-occurrence, run length): ending of a short name -> (identifier, words)."""

UNDIRECTED = {
    "2D": ("8QNN", "2D, averaged over slices"),
    "2_5D": ("62GR", "2.5D, slices merged"),
    "3D": ("KOBO", "3D"),
}
"""Ways to aggregate matrices without a direction (zones and neighbourhoods)."""

_MATRIX = {
    "sre": "short runs emphasis",
    "lre": "long runs emphasis",
    "lgre": "low grey level run emphasis",
    "hgre": "high grey level run emphasis",
    "srlge": "short run low grey level emphasis",
    "srhge": "short run high grey level emphasis",
    "lrlge": "long run low grey level emphasis",
    "lrhge": "long run high grey level emphasis",
    "glnu": "grey level non-uniformity",
    "glnu_norm": "normalised grey level non-uniformity",
    "rlnu": "run length non-uniformity",
    "rlnu_norm": "normalised run length non-uniformity",
    "r_perc": "run percentage",
    "gl_var": "grey level variance",
    "rl_var": "run length variance",
    "rl_entr": "run entropy",
    "sze": "small zone emphasis",
    "lze": "large zone emphasis",
    "lgze": "low grey level zone emphasis",
    "hgze": "high grey level zone emphasis",
    "szlge": "small zone low grey level emphasis",
    "szhge": "small zone high grey level emphasis",
    "lzlge": "large zone low grey level emphasis",
    "lzhge": "large zone high grey level emphasis",
    "zsnu": "zone size non-uniformity",
    "zsnu_norm": "normalised zone size non-uniformity",
    "z_perc": "zone percentage",
    "zs_var": "zone size variance",
    "zs_entr": "zone size entropy",
    "sde": "small distance emphasis",
    "lde": "large distance emphasis",
    "sdlge": "small distance low grey level emphasis",
    "sdhge": "small distance high grey level emphasis",
    "ldlge": "large distance low grey level emphasis",
    "ldhge": "large distance high grey level emphasis",
    "zdnu": "zone distance non-uniformity",
    "zdnu_norm": "normalised zone distance non-uniformity",
    "zd_var": "zone distance variance",
    "zd_entr": "zone distance entropy",
}

_LISTED = """
morph_volume RNU0 volume of the mesh, mm3
morph_vol_approx YEKZ volume by counting voxels, mm3
morph_area_mesh C0JK surface area of the mesh, mm2
morph_av 2PR5 surface to volume ratio, 1/mm
morph_comp_1 SKGS compactness 1
morph_comp_2 BQWJ compactness 2
morph_sph_dispr KRCK spherical disproportion
morph_sphericity QCFX sphericity
morph_asphericity 25C7 asphericity
morph_com KLMA centre of mass shift, mm
morph_diam L0JK maximum 3D diameter, mm
morph_pca_maj_axis TDIC major axis length, mm
morph_pca_min_axis P9VJ minor axis length, mm
morph_pca_least_axis 7J51 least axis length, mm
morph_pca_elongation Q3CK elongation
morph_pca_flatness N17B flatness
morph_vol_dens_aabb PBX1 volume density in the axis-aligned bounding box
morph_area_dens_aabb R59B area density in the axis-aligned bounding box
morph_vol_dens_ombb ZH1A volume density in the oriented minimum bounding box
morph_area_dens_ombb IQYR area density in the oriented minimum bounding box
morph_vol_dens_aee 6BDE volume density in the approximate enclosing ellipsoid
morph_area_dens_aee RDD2 area density in the approximate enclosing ellipsoid
morph_vol_dens_mvee SWZ1 volume density in the minimum volume enclosing ellipsoid
morph_area_dens_mvee BRI8 area density in the minimum volume enclosing ellipsoid
morph_vol_dens_conv_hull R3ER volume density in the convex hull
morph_area_dens_conv_hull 7T7F area density in the convex hull
morph_integ_int 99N0 integrated intensity
morph_moran_i N365 Moran's I index
morph_geary_c NPT7 Geary's C measure
loc_peak_loc VJGA local intensity peak
loc_peak_glob 0F91 global intensity peak
stat_mean Q4LE mean intensity
stat_var ECT3 intensity variance
stat_skew KE2A intensity skewness
stat_kurt IPH6 intensity kurtosis
stat_median Y12H median intensity
stat_min 1GSF minimum intensity
stat_p10 QG58 10th intensity percentile
stat_p90 8DWT 90th intensity percentile
stat_max 84IY maximum intensity
stat_iqr SALO intensity interquartile range
stat_range 2OJQ intensity range
stat_mad 4FUA intensity mean absolute deviation
stat_rmad 1128 intensity robust mean absolute deviation
stat_medad N72L intensity median absolute deviation
stat_cov 7TET intensity coefficient of variation
stat_qcod 9S40 intensity quartile coefficient of dispersion
stat_energy N8CA intensity energy
stat_rms 5ZWQ root mean square intensity
ih_mean X6K6 mean discretised intensity
ih_var CH89 discretised intensity variance
ih_skew 88K1 discretised intensity skewness
ih_kurt C3I7 discretised intensity kurtosis
ih_median WIFQ median discretised intensity
ih_min 1PR8 minimum discretised intensity
ih_p10 GPMT 10th discretised intensity percentile
ih_p90 OZ0C 90th discretised intensity percentile
ih_max 3NCY maximum discretised intensity
ih_mode AMMC intensity histogram mode
ih_iqr WR0O discretised intensity interquartile range
ih_range 5Z3W discretised intensity range
ih_mad D2ZX intensity histogram mean absolute deviation
ih_rmad WRZB intensity histogram robust mean absolute deviation
ih_medad 4RNL intensity histogram median absolute deviation
ih_cov CWYJ intensity histogram coefficient of variation
ih_qcod SLWD intensity histogram quartile coefficient of dispersion
ih_entropy TLU2 discretised intensity entropy
ih_uniformity BJ5W discretised intensity uniformity
ih_max_grad 12CE maximum histogram gradient
ih_max_grad_g 8E6O maximum histogram gradient intensity
ih_min_grad VQB3 minimum histogram gradient
ih_min_grad_g RHQZ minimum histogram gradient intensity
ivh_v10 BC2M volume fraction at 10 % intensity
ivh_v90 BC2M volume fraction at 90 % intensity
ivh_i10 GBPN intensity at 10 % volume
ivh_i90 GBPN intensity at 90 % volume
ivh_diff_v10_v90 DDTU volume fraction difference between 10 % and 90 % intensity
ivh_diff_i10_i90 CNV2 intensity difference between 10 % and 90 % volume
ivh_auc 9CMM area under the intensity-volume histogram
cm_joint_max GYBY joint maximum
cm_joint_avg 60VM joint average
cm_joint_var UR99 joint variance
cm_joint_entr TU9B joint entropy
cm_diff_avg TF7R difference average
cm_diff_var D3YU difference variance
cm_diff_entr NTRS difference entropy
cm_sum_avg ZGXS sum average
cm_sum_var OEEB sum variance
cm_sum_entr P6QZ sum entropy
cm_energy 8ZQL angular second moment
cm_contrast ACUI contrast
cm_dissimilarity 8S9J dissimilarity
cm_inv_diff IB1Z inverse difference
cm_inv_diff_norm NDRX normalised inverse difference
cm_inv_diff_mom WF0Z inverse difference moment
cm_inv_diff_mom_norm 1QCO normalised inverse difference moment
cm_inv_var E8JP inverse variance
cm_corr NI2N correlation
cm_auto_corr QWB0 autocorrelation
cm_clust_tend DG8W cluster tendency
cm_clust_shade 7NFM cluster shade
cm_clust_prom AE86 cluster prominence
cm_info_corr1 R8DG first measure of information correlation
cm_info_corr2 JN9H second measure of information correlation
ngt_coarseness QCDE coarseness
ngt_contrast 65HE contrast
ngt_busyness NQ30 busyness
ngt_complexity HDEZ complexity
ngt_strength 1X9X strength
ngl_lde SODN low dependence emphasis
ngl_hde IMOQ high dependence emphasis
ngl_lgce TL9H low grey level count emphasis
ngl_hgce OAE7 high grey level count emphasis
ngl_ldlge EQ3F low dependence low grey level emphasis
ngl_ldhge JA6D low dependence high grey level emphasis
ngl_hdlge NBZI high dependence low grey level emphasis
ngl_hdhge 9QMG high dependence high grey level emphasis
ngl_glnu FP8K grey level non-uniformity
ngl_glnu_norm 5SPA normalised grey level non-uniformity
ngl_dcnu Z87G dependence count non-uniformity
ngl_dcnu_norm OKJI normalised dependence count non-uniformity
ngl_dc_perc 6XV8 dependence count percentage
ngl_gl_var 1PFV grey level variance
ngl_dc_var DNX2 dependence count variance
ngl_dc_entr FCBV dependence count entropy
ngl_dc_energy CAS9 dependence count energy
"""
"""Short name, identifier, words; the run length and zone families, whose words repeat, are listed below."""

_REPEATED = {
    "rlm": "sre 22OV lre W4KF lgre V3SW hgre G3QZ srlge HTZT srhge GD3A lrlge IVPO lrhge 3KUM glnu R5YN glnu_norm OVBL "
    "rlnu W92Y rlnu_norm IC23 r_perc 9ZK5 gl_var 8CE5 rl_var SXLW rl_entr HJ9O",
    "szm": "sze 5QRC lze 48P8 lgze XMSY hgze 5GN9 szlge 5RAI szhge HW1V lzlge YH51 lzhge J17V glnu JNSA glnu_norm Y1RO "
    "zsnu 4JP3 zsnu_norm VB3A z_perc P30P gl_var BYLV zs_var 3NSA zs_entr GU8N",
    "dzm": "sde 0GBI lde MB4I lgze S1RA hgze K26C sdlge RUVG sdhge DKNJ ldlge A7WM ldhge KLTH glnu VFT7 glnu_norm 7HP3 "
    "zdnu V294 zdnu_norm IATH z_perc VIWW gl_var QK93 zd_var 7WT1 zd_entr GBDU",
}


@dataclass(frozen=True)
class Feature:
    """A feature of one family: ``tag`` without aggregation (``cm_joint_max``), IBSI ``identifier``, ``words``."""

    tag: str
    identifier: str
    words: str

    @cached_property
    def family(self) -> str:
        """Key into FAMILIES."""
        return self.tag.split("_")[0]

    @property
    def aggregations(self) -> dict[str, tuple[str, str]]:
        """Endings this feature's column may have; none outside the texture families."""
        if self.family in ("cm", "rlm"):
            return DIRECTED
        return UNDIRECTED if self.family in ("szm", "dzm", "ngt", "ngl") else {}


def _features() -> dict[str, Feature]:
    listed = [line.split(" ", 2) for line in _LISTED.strip().splitlines()]
    for family, pairs in _REPEATED.items():
        flat = pairs.split()
        listed += [[f"{family}_{tag}", code, _MATRIX[tag]] for tag, code in zip(flat[::2], flat[1::2], strict=True)]
    order = {family: n for n, family in enumerate(FAMILIES)}
    found = [Feature(tag, code, words) for tag, code, words in listed]
    return {feature.tag: feature for feature in sorted(found, key=lambda feature: order[feature.family])}


FEATURES: dict[str, Feature] = _features()
"""Every feature by its tag, family by family in the order of the manual."""

NO_CONSENSUS = (
    "morph_vol_dens_ombb",
    "morph_area_dens_ombb",
    "morph_vol_dens_mvee",
    "morph_area_dens_mvee",
    "ivh_auc",
)
"""Defined by the manual, but without a consensus value to check against."""


def tags(family: str) -> tuple[str, ...]:
    """Short names of a family's features without its own, in the order of the manual: ``tags("ngt")[0]`` is ``coarseness``."""
    return tuple(tag.removeprefix(family + "_") for tag, feature in FEATURES.items() if feature.family == family)


def split(name: str) -> tuple[Feature, str]:
    """The feature and the aggregation ("" outside the texture families) of a column name. Raises KeyError for any other name."""
    if name in FEATURES and not FEATURES[name].aggregations:
        return FEATURES[name], ""
    for ending in (*DIRECTED, *UNDIRECTED):
        tag = name.removesuffix("_" + ending)
        if tag != name and tag in FEATURES and ending in FEATURES[tag].aggregations:
            return FEATURES[tag], ending
    raise KeyError(name)


def code(name: str) -> str:
    """A column name as IBSI identifiers: ``cm_joint_max_3D_comb`` -> ``LFYI.GYBY.IAZD``; the IVH keeps its fractions (``P88C.BC2M.10``)."""
    feature, ending = split(name)
    parts = [FAMILIES[feature.family][0], feature.identifier]
    if feature.identifier in ("BC2M", "GBPN"):
        parts.append(feature.tag[-2:])
    return ".".join(parts + ([feature.aggregations[ending][0]] if ending else []))


def words(name: str) -> str:
    """A column name in words: ``grey level co-occurrence: joint maximum (3D, all merged)``."""
    feature, ending = split(name)
    said = f"{FAMILIES[feature.family][1]}: {feature.words}"
    return f"{said} ({feature.aggregations[ending][1]})" if ending else said

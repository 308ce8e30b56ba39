"""What the dose does to the organs: DVH and plan figures, NTCP, gamma, and dosiomics; arrays and volumes in, numbers out.

dvh.py      DVH of contours or masks, exact however small; D95%, V20Gy, gEUD, EQD2     figures.py  the names of such figures
cells.py    a structure cut into small cells                                            field.py    dose between the points of its grid
indices.py  homogeneity and conformity                                                  gamma.py    two doses compared
ntcp.py     Lyman-Kutcher-Burman and logistic models, with published parameters
dosiomics.py  the IBSI features of a structure, from region.py, discretise.py, intensity.py, morphology.py (mesh.py) and texture.py
            (texture_loops.py), called by names.py; robustness.py  how far they bear small changes
"""

"""What the dose does to targets and organs; arrays and volumes in, numbers out.

dvh.py      DVH of contours or masks, exact however small; D95%, V20Gy, gEUD, EQD2     metric_names.py  the names of such figures
cells.py    a structure cut into small cells                                            field.py         dose between the points of its grid
targets.py  what is prescribed to targets, and how well they receive it                 indices.py       homogeneity and conformity
ntcp.py     Lyman-Kutcher-Burman and logistic models, with published parameters         gamma.py         two doses compared
"""

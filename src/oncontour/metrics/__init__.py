"""Numbers that judge: arrays and volumes in, numbers out; no torch, no files.

``overlap``     DSC, JI, sensitivity, precision, per slice and whole
``surface``     distances between sub-voxel surfaces in mm, read as ASD, MSD, HD, HD95, surface DSC, added path length
``stats``       paired tests, Holm, intervals that resample patients
``isosurface``  a mask as triangles and contours; ``nearest`` exact distance to them
"""

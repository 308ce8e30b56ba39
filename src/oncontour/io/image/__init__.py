"""Image files in and out: NIfTI, NRRD, MetaImage, label maps and OpenKBP."""

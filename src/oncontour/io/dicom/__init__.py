"""DICOM-RT in and out: series, structure sets, segmentations and doses."""

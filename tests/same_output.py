"""Commands for ``test_same_output.py``, run in a process of its own: python -m tests.same_output SOURCE OUT THREADS JOBS."""

from __future__ import annotations

import sys

from oncontour.cli import main

if __name__ == "__main__":
    source, out, threads, jobs = sys.argv[1:]
    patient, cohort = f"{source}/dicom", f"{source}/cohort"
    commands = [
        ["run", patient, "--out", f"{out}/run", "--model", "hn-organs", "--threads", threads],
        ["evaluate", cohort, "--predictions", f"{source}/drawn", "--out", f"{out}/evaluate", "--overlays", "three", "--jobs", jobs],
        ["features", cohort, "--out", f"{out}/features.csv", "--jobs", jobs, "--structures", "Parotid_L"],
        ["dvh", patient, "--out", f"{out}/dvh", "--ntcp"],
    ]
    sys.exit(max(main(words) for words in commands))

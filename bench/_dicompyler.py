"""dicompyler-core's side of bench/dvh.py, run by the Python of an environment that has it: DICOM files in, curves and seconds out (JSON).

PYTHON bench/_dicompyler.py JOBS.json, a list of {"folder", "gy": [doses], "options": of get_dvh}
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dicompylercore import dvhcalc


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    jobs = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write(json.dumps({"version": version("dicompyler-core"), "found": [one(job) for job in jobs]}))


def one(job: dict[str, Any]) -> dict[str, Any]:
    """``above_cc`` at each dose of the job; None, and why, where nothing comes out. Without options nothing is asked."""
    if job["options"] is None:
        return {"above_cc": None, "why": "", "seconds": None}
    start = time.process_time()
    try:
        found = dvhcalc.get_dvh(f"{job['folder']}/RTSTRUCT.dcm", f"{job['folder']}/RTDOSE.dcm", 1, **job["options"])
    except Exception as error:
        return {"above_cc": None, "why": f"{type(error).__name__}: {error}", "seconds": time.process_time() - start}
    curve = np.interp(job["gy"], found.bins[:-1], found.counts, right=0.0)
    return {"above_cc": curve.tolist(), "why": "", "seconds": time.process_time() - start}


if __name__ == "__main__":
    main()

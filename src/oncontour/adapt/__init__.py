"""One patient at two times: what moved between a planning CT and a CT of the day, and what it carries."""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # Read by the OpenMP library that torch loads. A search is made of thousands of short steps; threads that wait for each other by turning
    # round and round take the processors from those they wait for wherever something else runs: 106 s in place of 11 on two processors of
    # which one was busy, 28 s with this (13 s where none was).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

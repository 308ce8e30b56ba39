"""Damaged input against every reader: ``seeds`` (small valid files), ``damage`` (ways to spoil them), ``judge`` (one child process a try).

In the suite ``test_fuzz.py`` runs a bounded number of tries under hypothesis, ``test_findings.py`` replays what was once found. By hand,
for as long as one likes: ``python -m tests.fuzz.long --group series --minutes 10``.
"""

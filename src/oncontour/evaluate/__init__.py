"""Contours judged against the truth: tidy numbers, honest statistics, pictures.

``judge``        patients and methods in, tidy rows out; what counts as missed, absent, nothing to judge
``found``        what is found of a patient and of all of them; ``kept`` of a patient as text, until all are judged
``predictions``  contours in files as a method; ``tables`` summaries, comparisons, CSV, the screen
``figures``      box plots and overlays; ``panels`` what the overlays show; ``write`` all of it as files
"""

"""The risk of a toxicity from the dose: cohort, net, baselines and virtual patients."""

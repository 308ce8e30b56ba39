"""oncontour: from planning CT to outcome, with geometry that can be trusted."""

__version__ = "0.1.0"

"""States of the arithmetic, in fingerprints: read where nothing that computes is loaded."""

from __future__ import annotations

CONCLUDED = 5
"""State of all that a verification concludes; a part of its fingerprint. Raise it with any change
by which the same runs and forecast would give another verdict, number or warning: the
verification is then concluded anew, from the runs that are there."""

TRAINED = 0
"""State of training and evaluation; above 0 a part of each run's fingerprint. Raise it with any
change by which the same documents, items and settings would give other losses: runs of two states
must not meet in one verification, as arms or as points of a forecast."""

CONTINUED = 1
"""The same of runs that go on from a pretrained model, which are the only ones that it marks.

1: the logits are the model's own (scale, cap, bias of the head), and so is what a document sees."""

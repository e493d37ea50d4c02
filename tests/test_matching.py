"""The mixture closest to a target: what made it is found, caps hold, halves decide the pull."""

import time

import numpy as np
import pytest

from curate.mixing.matching import match_embeddings


def test_embeddings_finds_the_mixture_that_made_the_target():
    rng = np.random.default_rng(1)
    vectors = rng.gamma(2.0, size=(6, 400))
    truth = np.array([0.5, 0, 0.3, 0, 0.2, 0])
    noise = rng.normal(1, 0.02, size=(4, 400))
    target = 7.5 * (truth @ vectors) * noise  # alignment ignores scale
    shares = match_embeddings(vectors, target, natural=np.full(6, 1 / 6), caps=np.full(6, 1.0))
    assert np.abs(shares - truth).max() < 0.04


def test_embeddings_keeps_the_caps():
    rng = np.random.default_rng(2)
    vectors = rng.gamma(2.0, size=(4, 300))
    shares = match_embeddings(
        vectors, vectors[:1].repeat(2, 0), natural=np.full(4, 0.25), caps=np.full(4, 0.4)
    )
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.4, abs=0.01)


def test_embeddings_of_many_shards_is_fast():
    rng = np.random.default_rng(3)
    vectors = rng.gamma(2.0, size=(400, 300))
    start = time.process_time()
    shares = match_embeddings(
        vectors, vectors[:20] * 1.1, natural=np.full(400, 1 / 400), caps=np.full(400, 0.05)
    )
    assert time.process_time() - start < 20
    assert shares.sum() == pytest.approx(1)

import itertools
import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.ranking.alignment import (
    align_all,
    alignment,
    compare,
    influences,
    noise,
    residual_bias,
)
from curate.ranking.measures import TRIVIAL_SHARE, layer_weights, measure_rows
from curate.ranking.prepared import block_edges, corpus_reference, prepare
from curate.records import RowBlock
from curate.settings import Measure

MEASURES = list(get_args(Measure))
MOVES = ["scaled", "log", "kl", "jeffreys", "entropy", "asymmetric", "whitened", "rms"]
SYMMETRIC = ["scaled", "late", "rms", "log", "whitened", "cosine", "jeffreys"]
BLOCKS = (RowBlock("a", 0, "a", 0, 30), RowBlock("b", 1, "b", 30, 80))


def fisher(seed, n=4, dim=80, spread=0.5, draws=60, base=None):
    """Sub-batches of gamma noise about a log-normal truth."""
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(size=dim) * spread) if base is None else base
    return rng.gamma(draws, truth / draws, size=(n, len(truth)))


def truths(dim=3_000, seed=0):
    rng = np.random.default_rng(seed)
    root = np.exp(rng.normal(size=dim))
    return [root * np.exp(rng.normal(size=dim) * 0.6) for _ in range(2)]


# --- definition ---


def naive_scaled(a, b, blocks=()):
    a, b = a.mean(axis=0).copy(), b.mean(axis=0).copy()
    edges = block_edges(blocks, len(a))
    for start, stop in itertools.pairwise(edges):
        a[start:stop] /= a[start:stop].mean()
        b[start:stop] /= b[start:stop].mean()
    x, y = a / (a + b), b / (a + b)
    return sum(x * y) / math.sqrt(sum(x * x) * sum(y * y))


@pytest.mark.parametrize("blocks", [(), BLOCKS])
def test_raw_scaled_is_the_published_cosine_of_each_pairs_quotients(blocks):
    a, b = fisher(1), fisher(2)
    raw = align_all(a, [b], blocks=blocks).raw[0]
    assert raw == pytest.approx(naive_scaled(a, b, blocks), rel=1e-12)


@pytest.mark.parametrize("blocks", [(), BLOCKS])
def test_the_noise_is_the_spread_of_the_sub_batches_about_their_common_form(blocks):
    stack = fisher(9, n=5)
    found = prepare(stack, measure="scaled", blocks=blocks)
    edges = block_edges(blocks, 80)
    for row, subset in enumerate([range(5), *(set(range(5)) - {i} for i in range(5))]):
        some = stack[list(subset)]
        for start, stop in itertools.pairwise(edges):
            part = some[:, start:stop]
            mean = part.mean(axis=0) / part.mean()
            residual = (part - mean * part.mean(axis=1, keepdims=True)) / part.mean()
            error = (residual**2).sum(axis=0) / (len(some) * (len(some) - 1))
            np.testing.assert_allclose(found.mean[row, start:stop], mean)
            np.testing.assert_allclose(found.variance[row, start:stop], error, rtol=1e-6)


def test_raw_cosine_is_the_cosine():
    a, b = fisher(1), fisher(2)
    x, y = a.mean(axis=0), b.mean(axis=0)
    expected = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert align_all(a, [b], measure="cosine").raw[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("blocks", [(), BLOCKS])
def test_raw_late_weighs_each_coordinate_by_its_layer(blocks):
    a, b = fisher(1), fisher(2)
    weights = layer_weights(blocks, 80)
    x, y = a.mean(axis=0), b.mean(axis=0)
    for start, stop in itertools.pairwise(block_edges(blocks, 80)):
        x[start:stop] /= x[start:stop].mean()
        y[start:stop] /= y[start:stop].mean()
    p, q = x / (x + y), y / (x + y)
    naive = sum(weights * p * q) / math.sqrt(sum(weights * p * p) * sum(weights * q * q))
    found = align_all(a, [b], measure="late", blocks=blocks)
    assert found.raw[0] == pytest.approx(naive, rel=1e-12)


def test_a_layer_weighs_half_as_much_a_tenth_of_the_depth_further_down():
    blocks = [RowBlock(str(n), n, "", 3 * n, 3 * n + 3) for n in range(20)]
    weights = layer_weights(blocks, 60)
    assert weights.sum() == pytest.approx(1.0)
    layers = weights.reshape(20, 3).sum(axis=1)
    np.testing.assert_allclose(layers[:-2] / layers[2:], 0.5)
    assert layer_weights([RowBlock("", 0, "", 0, 4)], 4).tolist() == [0.25] * 4


def naive_divergence(a, b, measure):
    x, y = a.mean(axis=0) / a.mean(), b.mean(axis=0) / b.mean()
    if measure == "entropy":
        p, q = x / x.sum(), y / y.sum()
        return sum(i * math.log(i / j) for i, j in zip(p, q, strict=True))

    def gaussian(x, y):
        pairs = zip(x, y, strict=True)
        return sum((i / j - 1 - math.log(i / j)) / 2 for i, j in pairs) / len(x)

    return gaussian(x, y) if measure == "kl" else (gaussian(x, y) + gaussian(y, x)) / 2


@pytest.mark.parametrize("measure", ["kl", "jeffreys", "entropy"])
def test_raw_divergences_are_those_of_gaussians_and_of_distributions(measure):
    a, b = fisher(1), fisher(2)
    found = align_all(a, [b], measure=measure).raw[0]
    assert found == pytest.approx(math.exp(-naive_divergence(a, b, measure)), rel=1e-12)


def test_raw_asymmetric_adds_the_shards_distance_to_the_trivial_embedding():
    a, b = fisher(1), fisher(2)
    distance, trivial = 1 - naive_scaled(a, b), 1 - naive_scaled(np.ones((1, 80)), b)
    naive = (1 - (distance - TRIVIAL_SHARE * trivial)) / (1 + TRIVIAL_SHARE)
    assert align_all(a, [b], measure="asymmetric").raw[0] == pytest.approx(naive, rel=1e-12)


def test_raw_rms_is_the_cosine_of_matrices_of_root_mean_square_one():
    a, b = fisher(1, n=1), fisher(2, n=1)
    x, y = a[0].copy(), b[0].copy()
    for start, stop in itertools.pairwise(block_edges(BLOCKS, 80)):
        x[start:stop] /= np.sqrt(np.mean(x[start:stop] ** 2))
        y[start:stop] /= np.sqrt(np.mean(y[start:stop] ** 2))
    naive = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert alignment(a, b, measure="rms", blocks=BLOCKS) == pytest.approx(naive, rel=1e-12)


def naive_whitening(shards, blocks=()):
    """The matrix (S / l + 1)^(-1/2) of the corpus's log embeddings, written out."""
    logs = np.stack([prepare(s, measure="log", blocks=blocks).mean[0] for s in shards])
    covariance = np.cov(logs.T, bias=True)
    power, vectors = np.linalg.eigh(covariance)
    level = np.sort(power)[::-1][: len(shards) - 1].mean()
    return logs.mean(axis=0), (vectors / np.sqrt(np.maximum(power, 0) / level + 1)) @ vectors.T


def test_whitened_is_the_cosine_after_the_inverse_root_of_the_corpus_covariance():
    shards = [fisher(seed) for seed in range(9)]
    reference = corpus_reference(iter(shards), measure="whitened")
    centre, matrix = naive_whitening(shards)
    for stack in (shards[0], fisher(20)):
        found = prepare(stack, measure="whitened", reference=reference)
        plain = prepare(stack, measure="log")
        np.testing.assert_allclose(
            found.mean[0], matrix @ (plain.mean[0] - centre), rtol=1e-4, atol=1e-5
        )
        for row, some in enumerate([[0, 1, 2, 3], [1, 2, 3], [0, 2, 3]]):
            part = stack[some] / stack[some].mean(axis=1, keepdims=True)
            weight = stack[some].mean(axis=1, keepdims=True) / stack[some].mean()
            mean = stack[some].mean(axis=0) / stack[some].mean()
            deviations = (part / mean - 1) * weight
            noise_of_sum = np.square(deviations @ matrix).sum() / (len(some) * (len(some) - 1))
            assert found.variance[row].sum() == pytest.approx(noise_of_sum, rel=1e-4)


def test_whitening_evens_out_the_directions_of_the_corpus():
    shards = [fisher(seed) for seed in range(9)]
    reference = corpus_reference(shards, measure="whitened")
    np.testing.assert_allclose(reference.directions @ reference.directions.T, np.eye(8), atol=1e-5)
    spread = [
        np.linalg.svd(np.stack(rows) - np.mean(rows, axis=0), compute_uv=False)[:8]
        for rows in (
            [prepare(s, measure=m, reference=r).mean[0] for s in shards]
            for m, r in (("log", None), ("whitened", reference))
        )
    ]
    assert spread[1][0] / spread[1][-1] < 0.8 * spread[0][0] / spread[0][-1]


def test_what_needs_no_corpus_does_not_read_it():
    def unread():
        raise AssertionError
        yield

    assert corpus_reference(unread(), measure="scaled") is None
    assert corpus_reference([fisher(0)], measure="log") is None
    same = corpus_reference([fisher(0), fisher(0)], measure="whitened")
    assert same.directions.shape == (0, 80)


@pytest.mark.parametrize("measure", ["scaled", "kl", "jeffreys", "entropy"])
def test_noise_correction_is_half_the_second_derivative_times_the_variance(measure):
    """The closed forms against central differences of the same moments."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5)
    vx, vy = rng.uniform(0.001, 0.01, 5), rng.uniform(0.001, 0.01, 5)

    def moments(x, y):
        t = (x - y) / (x + y)
        if measure == "scaled":
            return np.array([t.mean(), (t**2).mean()])
        nothing = np.zeros((1, 5))
        return -np.log(measure_rows(x[None], nothing, y[None], nothing, measure=measure)[0])

    def curvature(f, step):
        return (f(step) - 2 * f(0) + f(-step)) / step**2

    bias = np.zeros(2 if measure == "scaled" else 1)
    for i in range(5):
        e = np.eye(5)[i]
        bias += curvature(lambda h, e=e: moments(x + h * e, y), 1e-3) * vx[i] / 2
        bias += curvature(lambda h, e=e: moments(x, y + h * e), 1e-3) * vy[i] / 2
    clean = moments(x, y) - bias
    expected = math.exp(-clean[0])
    if measure == "scaled":
        expected = (1 - clean[1]) / math.sqrt((1 + clean[1]) ** 2 - 4 * clean[0] ** 2)
    _, corrected = measure_rows(x[None], vx[None], y[None], vy[None], measure=measure)
    assert corrected[0] == pytest.approx(expected, rel=1e-5)


# --- known answers ---


@pytest.mark.parametrize("measure", MEASURES)
def test_a_target_is_aligned_with_itself_to_one(measure):
    a = fisher(1, n=1)
    worth = 1 - naive_scaled(np.ones((1, 80)), a) if measure == "asymmetric" else 0
    expected = (1 + TRIVIAL_SHARE * worth) / (1 + TRIVIAL_SHARE if worth else 1)
    assert alignment(a, a, measure=measure) == pytest.approx(expected, abs=1e-12)


def test_two_coordinates_have_a_closed_form():
    # means 1: a = (1.5, .5), b = (.5, 1.5); t = (.5, -.5): mean 0, mean square 1/4
    a, b = np.array([[3.0, 1.0]]), np.array([[1.0, 3.0]])
    assert alignment(a, b, measure="scaled") == pytest.approx(0.75 / 1.25)
    assert alignment(a, b, measure="cosine") == pytest.approx(0.6)
    assert alignment(a, b, measure="log") == pytest.approx(0.0, abs=1e-12)
    assert alignment(a, b, measure="kl") == pytest.approx(math.exp(-(3 + 1 / 3 - 2) / 4))
    assert alignment(a, b, measure="jeffreys") == pytest.approx(math.exp(-(3 + 1 / 3 - 2) / 4))
    assert alignment(a, b, measure="entropy") == pytest.approx(math.exp(-math.log(3) / 2))
    # to the flat embedding: t = (1/5, -1/3), mean -1/15, mean square 17/225
    trivial = (1 - 17 / 225) / math.sqrt((1 + 17 / 225) ** 2 - 4 / 225)
    assert alignment(a, b, measure="asymmetric") == pytest.approx(
        (0.6 + TRIVIAL_SHARE * (1 - trivial)) / (1 + TRIVIAL_SHARE)
    )


def test_disjoint_embeddings_are_not_aligned():
    a, b = np.array([[1.0, 1e-300]]), np.array([[1e-300, 1.0]])
    assert alignment(a, b, measure="scaled") == 0.0


def test_influences_of_a_mean_are_the_deviations():
    numbers = np.array([1.0, 4.0, 2.0, 9.0])
    leave_outs = np.array([np.delete(numbers, i).mean() for i in range(4)])
    np.testing.assert_allclose(influences(leave_outs), numbers - numbers.mean())


def test_a_bias_that_falls_as_one_over_n_squared_is_found():
    for n in (3, 4, 9):
        leave_outs = 0.7 + 0.2 / (n - 1) ** 2 + np.linspace(-0.01, 0.01, n)
        assert residual_bias(0.7 + 0.2 / n**2, leave_outs) == pytest.approx(0.2 / n**2)
    assert residual_bias(0.7, np.array([0.1, 0.2])) == 0.0  # lone sub-batches: nothing taken out
    assert residual_bias(0.7, np.zeros(0)) == 0.0


# --- invariances ---


@pytest.mark.parametrize("measure", MEASURES)
@given(power=st.floats(-12, 12))
@settings(max_examples=15, deadline=None)
def test_a_constant_factor_changes_nothing(measure, power):
    a, b = fisher(3), fisher(4)
    plain = align_all(a, [b], measure=measure)
    moved = align_all(a * 10.0**power, [b * 10.0 ** (-power / 2)], measure=measure)
    np.testing.assert_allclose(moved.values, plain.values, rtol=1e-9)
    np.testing.assert_allclose(moved.moves.shard, plain.moves.shard, atol=1e-9)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m != "cosine"])
def test_a_factor_on_one_weight_matrix_changes_nothing(measure):
    a, b = fisher(3), fisher(4)
    factors = np.where(np.arange(80) < 30, 1e5, 1.0)
    plain = alignment(a, b, measure=measure, blocks=BLOCKS)
    assert alignment(a, b * factors, measure=measure, blocks=BLOCKS) == pytest.approx(plain)
    if measure != "late":  # which without blocks has no layers either
        assert alignment(a, b * factors, measure=measure) != pytest.approx(plain, abs=1e-3)


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_coordinates_and_of_sub_batches_does_not_matter(measure):
    a, b = fisher(5), fisher(6)
    order = np.random.default_rng(0).permutation(80)
    plain = alignment(a, b, measure=measure)
    assert alignment(a[:, order], b[:, order], measure=measure) == pytest.approx(plain)
    assert alignment(a[::-1], b[[2, 0, 3, 1]], measure=measure) == pytest.approx(plain)


@pytest.mark.parametrize("measure", SYMMETRIC)
def test_symmetric_measures_are_symmetric(measure):
    a, b = fisher(5), fisher(6, n=6)
    assert alignment(a, b, measure=measure) == pytest.approx(alignment(b, a, measure=measure))


@pytest.mark.parametrize("measure", ["kl", "entropy"])
def test_divergences_are_not_symmetric_and_forgive_a_broad_source(measure):
    narrow, broad = np.array([[1.0, 1.0, 0.01, 0.01]]), np.ones((1, 4))
    assert alignment(narrow, broad, measure=measure) > alignment(broad, narrow, measure=measure)


def test_asymmetric_prefers_of_two_equally_near_shards_the_one_that_is_less_trivial():
    flat, peaked = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[3.0, 0.3, 0.3, 0.4]])
    one, other = (
        alignment(*pair, measure="asymmetric") for pair in ((flat, peaked), (peaked, flat))
    )
    assert alignment(flat, peaked) == pytest.approx(alignment(peaked, flat))
    assert one > other


@given(seed=st.integers(0, 500), measure=st.sampled_from(MEASURES))
@settings(max_examples=40, deadline=None)
def test_alignment_lies_between_zero_and_one(seed, measure):
    a, b = fisher(seed, spread=2, draws=1), fisher(seed + 1, spread=2, draws=1)
    assert 0.0 <= alignment(a, b, measure=measure) <= 1.0


def test_a_factor_common_to_a_sub_batch_is_no_noise():
    a, b = fisher(7, draws=1e6), fisher(8, draws=1e6)
    factors = np.array([[1.0], [2.0], [0.5], [3.0]])
    assert alignment(a * factors, b) == pytest.approx(alignment(a, b), abs=1e-4)


# --- theory ---


@pytest.mark.parametrize("measure", MOVES)
def test_the_coefficient_does_not_move_with_the_tokens_embedded(measure):
    """A coordinate's relative noise in a sub-batch goes from 0.7 to 0.06: 128 × the tokens."""
    one, other = truths()
    truth = alignment(one[None], other[None], measure=measure)
    found, raw = [], []
    for draws in (2, 8, 32, 256):
        a, b = fisher(1, base=one, draws=draws), fisher(2, base=other, draws=draws)
        result = align_all(a, [b], measure=measure)
        found.append(result.values[0])
        raw.append(result.raw[0])
    np.testing.assert_allclose(found, truth, atol=0.025 if measure == "entropy" else 0.02)
    assert truth - raw[0] > 0.02  # without the correction it does move


@pytest.mark.parametrize("measure", MOVES)
def test_another_drawing_of_the_target_is_aligned_to_one(measure):
    one, other = truths()
    result = align_all(
        fisher(1, base=one, draws=8),
        [fisher(2, base=one, draws=8), fisher(3, base=other)],
        measure=measure,
    )
    top = alignment(one[None], one[None], measure=measure)
    assert result.values[0] == pytest.approx(top, abs=0.01)
    assert result.values[0] > result.floor > result.values[1]
    assert result.raw_ceiling < result.ceiling == pytest.approx(top, abs=0.02)


def test_ceiling_falls_with_noise_and_is_not_measured_with_one_sub_batch():
    quiet, loud = fisher(1, draws=500), fisher(1, draws=2)
    assert noise(loud)[1] < noise(quiet)[1] < 1
    assert noise(quiet[:1]) == (1.0, 1.0, 0.0)
    assert noise(quiet[:2])[1] < 1


def test_log_is_centred_on_the_corpus():
    shards = [fisher(seed) for seed in range(5)]
    reference = corpus_reference(iter(shards), measure="log")
    logs = [prepare(stack, measure="log").mean[0] for stack in shards]
    np.testing.assert_allclose(reference.centre, np.mean(logs, axis=0))
    raw, _ = compare(
        prepare(shards[0], measure="log", reference=reference),
        prepare(shards[1], measure="log", reference=reference),
        measure="log",
    )
    x, y = logs[0] - reference.centre, logs[1] - reference.centre
    assert raw[0] == pytest.approx((1 + x @ y / np.linalg.norm(x) / np.linalg.norm(y)) / 2)


# --- degenerate ---


@pytest.mark.parametrize(
    "bad", [np.ones(4), np.ones((0, 4)), np.array([[1.0, np.nan]]), np.array([[1.0, 0.0]])]
)
def test_what_is_no_embedding_is_refused(bad):
    with pytest.raises(ValueError, match="embedding"):
        alignment(bad, bad)


def test_embeddings_of_two_probes_are_refused():
    with pytest.raises(ValueError, match="dimensions differ"):
        alignment(fisher(1, dim=80), fisher(2, dim=81))
    with pytest.raises(ValueError, match="cover"):
        alignment(fisher(1, dim=81), fisher(2, dim=81), blocks=BLOCKS)


@pytest.mark.parametrize("measure", MEASURES)
def test_coordinates_that_are_all_noise_leave_finite_values(measure):
    """Of four sub-batches one has all of a coordinate, the others next to nothing."""
    rng = np.random.default_rng(0)
    one, *others = (rng.gamma(0.05, 20, size=(4, 50)) + 1e-30 for _ in range(3))
    reference = corpus_reference(others, measure=measure)
    found = align_all(one, others, measure=measure, reference=reference)
    for rows in (found.values, found.raw, found.moves.target, found.moves.shard):
        assert np.isfinite(rows).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_equal_shards_are_aligned_alike(measure):
    """Two of them are their corpus's mean: under `log` there is no direction to compare."""
    shards = [fisher(2), fisher(2)]
    reference = corpus_reference(shards, measure=measure)
    found = align_all(fisher(1), shards, measure=measure, reference=reference)
    assert found.values[0] == found.values[1]
    assert np.isfinite(found.values).all() and np.isfinite(found.moves.shard).all()
    if measure in ("log", "whitened"):
        assert found.raw.tolist() == [0.5, 0.5]


def test_shards_may_differ_in_sub_batches():
    result = align_all(fisher(1), [fisher(2, n=1), fisher(3, n=5)])
    assert result.moves.shard.shape == (2, 5)
    assert result.moves.shard_batches.tolist() == [1, 5]
    assert not result.moves.shard[0].any()


def test_no_shard_gives_no_alignment():
    result = align_all(fisher(1), [])
    assert result.values.shape == (0,)
    assert corpus_reference([], measure="log") is None

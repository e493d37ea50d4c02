"""Mean gradients: against autograd, what must not matter, and the drop that they forecast."""

import copy

import numpy as np
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from curate.ranking.baselines import transfer
from curate.ranking.stats import t_intervals
from curate.task2vec import hooks
from curate.task2vec.fisher import fisher_rows
from curate.task2vec.gradients import COLUMNS, whiten_and_project
from curate.task2vec.quantity import FisherSettings
from curate.task2vec.rows import random_signs
from tests.test_fisher import build, texts

WIDTH = 4_096
GRADIENTS = FisherSettings(gradients=WIDTH)
GROUPS = [0, 1, 0, 1, 1]


def matrices(model, found):
    """The blocks' weight matrices as (out, in), in the order of the embedding."""
    parameters = dict(model.named_parameters())
    for block in found.blocks:
        name = block.name if block.name in parameters else f"{block.name}.weight"
        module = model.get_submodule(name.rpartition(".")[0])
        yield parameters[name], isinstance(module, Conv1D)


def mean_gradients(model, sequences, found):
    """Gradient of the mean log-likelihood of a text's own tokens, one sequence at a time."""
    model.requires_grad_(True).zero_grad()
    labels = sum(len(ids) - 1 for ids in sequences)
    for ids in sequences:
        tensor = torch.from_numpy(ids).long()
        logp = model(input_ids=tensor[None]).logits[0, :-1].log_softmax(-1)
        (logp.gather(1, tensor[1:, None]).sum() / labels).backward()
    grads = [(p.grad.T if turned else p.grad).numpy() for p, turned in matrices(model, found)]
    model.requires_grad_(False)
    return [np.concatenate(list(g)) if g.ndim == 3 else g.copy() for g in grads]


def of_a_label(found, sequences):
    """The Fisher information of one label: all groups' mean a sequence over labels a sequence."""
    counts = np.array(found.n_sequences)
    rows = counts @ found.values / counts.sum()
    return rows * counts.sum() / sum(len(ids) - 1 for ids in sequences)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_mean_gradients_are_those_of_autograd(name, monkeypatch):
    monkeypatch.setattr(
        hooks, "column_signs", lambda width, number, seed: random_signs(width, COLUMNS, seed)
    )
    model, sequences = build(name), texts()
    found = fisher_rows(model, sequences, groups=GROUPS, settings=GRADIENTS)
    fisher = of_a_label(found, sequences)
    for group in (0, 1):
        own = [ids for ids, of in zip(sequences, GROUPS, strict=True) if of == group]
        grads = mean_gradients(copy.deepcopy(model), own, found)
        projected = [g @ random_signs(g.shape[1], COLUMNS, 0).numpy() for g in grads]
        expected = whiten_and_project(np.concatenate(projected)[None], fisher, width=WIDTH, seed=0)[
            0
        ]
        error = np.linalg.norm(found.gradients[group] - expected) / np.linalg.norm(expected)
        assert error < 1e-4


@pytest.mark.parametrize("labels", ["model", "data"])
def test_neither_batch_nor_packing_nor_order_changes_them(labels):
    model, sequences = build(), texts()
    settings = FisherSettings(gradients=64, labels=labels)
    found = fisher_rows(model, sequences, groups=GROUPS, settings=settings)
    scale = np.abs(found.gradients).max()
    for other in (
        fisher_rows(model, sequences, groups=GROUPS, settings=settings, batch_tokens=1),
        fisher_rows(model, sequences, groups=GROUPS, settings=settings, packed=True),
        fisher_rows(model, sequences[::-1], groups=GROUPS[::-1], settings=settings),
    ):
        np.testing.assert_allclose(other.gradients, found.gradients, atol=2e-5 * scale)


def test_rows_do_not_change_with_them_and_both_label_kinds_give_the_same_means():
    model, sequences = build(), texts()
    plain = fisher_rows(model, sequences, settings=FisherSettings())
    found = fisher_rows(model, sequences, settings=GRADIENTS)
    np.testing.assert_array_equal(found.values, plain.values)
    assert plain.gradients is None
    with pytest.raises(ValueError, match="gradients need rows of output units"):
        fisher_rows(model, sequences, settings=FisherSettings(gradients=8, rows="input"))
    with pytest.raises(ValueError, match="gradients is -1"):
        fisher_rows(model, sequences, settings=FisherSettings(gradients=-1))


def test_the_product_is_the_drop_after_a_natural_gradient_step():
    """Step of the model along F⁻¹ g of one text; the loss on another falls by rate · g · F⁻¹ g'."""
    model = build()
    rng = np.random.default_rng(3)
    ours, theirs = ([rng.choice(p, 40).astype(np.int32) for _ in range(6)]
                    for p in (np.arange(1, 20), np.arange(6, 24)))  # fmt: skip
    parts = [fisher_rows(model, part, settings=GRADIENTS) for part in (ours, theirs)]
    g, h = (mean_gradients(copy.deepcopy(model), part, parts[0]) for part in (ours, theirs))
    fisher = np.sqrt(of_a_label(parts[0], ours) * of_a_label(parts[1], theirs))
    rows = np.split(fisher, np.cumsum([len(each) for each in g])[:-1])
    steps = [each / f[:, None] for each, f in zip(h, rows, strict=True)]
    exact = sum((a * b).sum() for a, b in zip(g, steps, strict=True))

    rate = 1e-5 / exact
    moved = copy.deepcopy(model).double()
    with torch.no_grad():
        for (parameter, _), step in zip(matrices(moved, parts[0]), steps, strict=True):
            parameter += rate * torch.from_numpy(step).double()
    drop = loss(model, ours) - loss(moved, ours)
    assert drop == pytest.approx(rate * exact, rel=0.02)

    estimates = []
    for seed in range(6):
        settings = FisherSettings(gradients=WIDTH, seed=seed)
        u, v = (fisher_rows(model, part, settings=settings).gradients for part in (ours, theirs))
        estimates.append(transfer(u, [v])[0][0])
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exact) < 4 * error + 0.05 * exact  # labels differ by seed
    assert error < 0.2 * exact


def loss(model, sequences):
    nats, labels = 0.0, 0
    twin = copy.deepcopy(model).double()
    for ids in sequences:
        tensor = torch.from_numpy(ids).long()
        with torch.no_grad():
            logp = twin(input_ids=tensor[None]).logits[0, :-1].log_softmax(-1)
        nats -= float(logp.gather(1, tensor[1:, None]).sum())
        labels += len(ids) - 1
    return nats / labels


# --- the projection and the method ---


def test_the_projection_is_linear_and_keeps_inner_products():
    rng = np.random.default_rng(0)
    rows = 30
    fisher = rng.gamma(1.0, size=rows)
    a, b = rng.normal(size=(2, 1, rows, COLUMNS))
    u, v = (whiten_and_project(x, fisher, width=1 << 20, seed=1) for x in (a, b))
    exact = np.einsum("nrc,nrc->", a / fisher[:, None], b) / COLUMNS
    assert (u @ v.T)[0, 0] == pytest.approx(exact, abs=1e-2)  # so wide that hardly any two meet
    np.testing.assert_allclose(
        whiten_and_project(2 * a - b, fisher, width=64, seed=1),
        2 * whiten_and_project(a, fisher, width=64, seed=1)
        - whiten_and_project(b, fisher, width=64, seed=1),
    )
    mean = np.mean([
        np.vdot(*(whiten_and_project(x, fisher, width=32, seed=s) for x in (a, b)))
        for s in range(400)
    ])  # fmt: skip
    spread = np.linalg.norm(a / fisher[:, None] ** 0.5) * np.linalg.norm(b / fisher[:, None] ** 0.5)
    assert abs(mean - exact) < 4 * spread / COLUMNS / np.sqrt(32 * 400)


def test_rows_without_information_give_nothing():
    found = whiten_and_project(np.ones((2, 3, COLUMNS)), np.zeros(3), width=5, seed=0)
    np.testing.assert_array_equal(found, 0)
    with pytest.raises(ValueError, match="mean gradients are"):
        whiten_and_project(np.ones((1, 3, COLUMNS)), np.ones(4), width=5, seed=0)


def test_transfer_of_quadratic_losses_has_a_closed_form():
    """Losses (x - centre)²/2 at x = 0, F = 1: a step of length 1 ends at the shard's centre."""
    target, shards = np.array([2.0, 0.0]), np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    values, _ = transfer(target[None], [row[None] for row in shards])
    rate = 1e-6
    drops = [((target**2).sum() - ((target - rate * row) ** 2).sum()) / 2 for row in shards]
    np.testing.assert_allclose(rate * values, drops, rtol=1e-5, atol=1e-11)


def test_transfer_is_bilinear_and_its_intervals_are_of_both_texts():
    rng = np.random.default_rng(1)
    target, shards = rng.normal(size=(4, 9)) + 1, [rng.normal(size=(n, 9)) for n in (4, 3)]
    values, influence = transfer(target, shards)
    np.testing.assert_allclose(values, [target.mean(0) @ s.mean(0) for s in shards])
    np.testing.assert_allclose(transfer(3 * target, shards)[0], 3 * values)
    order = rng.permutation(9)
    np.testing.assert_allclose(
        transfer(target[::-1, order], [s[:, order] for s in shards])[0], values
    )
    without = [np.delete(target, n, axis=0).mean(0) @ shards[0].mean(0) for n in range(4)]
    np.testing.assert_allclose(influence.target[0], 3 * (np.mean(without) - np.array(without)))
    assert influence.shard_batches.tolist() == [4, 3]


def test_intervals_of_transfer_cover_as_often_as_they_say():
    rng = np.random.default_rng(2)
    centre, places = rng.normal(size=20), rng.normal(size=(3, 20))
    truth, held = places @ centre, []
    for _ in range(400):
        target = centre + 0.4 * rng.normal(size=(4, 20))  # wider where both are all noise
        shards = [place + 0.4 * rng.normal(size=(4, 20)) for place in places]
        low, high = t_intervals(*transfer(target, shards))
        held.append((low <= truth) & (truth <= high))
    assert 0.93 <= np.mean(held) <= 0.97, np.mean(held)

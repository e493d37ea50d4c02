import numpy as np
import pytest

from curate.corpus.tokens import (
    choose_batches,
    count_unigrams,
    cut_blocks,
    document_cap,
    draw_batches,
    pack,
    pad_batch,
)


def documents(*lengths):
    ends = np.cumsum(lengths)
    return [np.arange(end - n, end, dtype=np.int32) for n, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize(
    ("length", "blocks"),
    [(0, []), (3, [3]), (16, [16]), (23, [16]), (24, [16, 8]), (40, [16, 16, 8])],
)
def test_blocks_of_one_document(length, blocks):
    cut = cut_blocks(documents(length), block_tokens=16)
    assert [len(block) for block in cut] == blocks
    joined = np.concatenate([*cut, np.zeros(0, np.int32)])
    assert np.array_equal(joined, np.arange(len(joined)))


def test_no_block_holds_two_documents():
    cut = cut_blocks(documents(20, 5, 9), block_tokens=10)
    assert [block.tolist() for block in cut] == [
        [*range(10)], [*range(10, 20)], [*range(20, 25)], [*range(25, 34)],
    ]  # fmt: skip


def test_a_tail_may_be_as_short_as_a_short_block():
    assert [len(block) for block in cut_blocks(documents(8), block_tokens=4)] == [4, 4]


def test_sub_batches_are_disjoint_seeded_and_full():
    lengths = np.random.default_rng(0).integers(5, 400, size=300)
    chosen = choose_batches(lengths, batches=4, batch_tokens=1_000, seed=1)
    everything = np.concatenate(chosen)
    assert len(set(everything.tolist())) == len(everything)
    for numbers in chosen:
        assert np.minimum(lengths[numbers], document_cap(1_000)).sum() >= 1_000
        assert len(numbers) >= 4
    again = choose_batches(lengths, batches=4, batch_tokens=1_000, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(chosen, again, strict=True))
    other = choose_batches(lengths, batches=4, batch_tokens=1_000, seed=2)
    assert not np.array_equal(chosen[0], other[0])


def test_a_small_shard_gives_equal_sub_batches():
    chosen = choose_batches([100] * 8, batches=4, batch_tokens=10_000, seed=0)
    assert [len(numbers) for numbers in chosen] == [2, 2, 2, 2]
    chosen = choose_batches([100], batches=3, batch_tokens=10_000, seed=0)
    assert sorted(len(numbers) for numbers in chosen) == [0, 0, 1]
    assert [len(n) for n in choose_batches([], batches=2, batch_tokens=5, seed=0)] == [0, 0]


@pytest.mark.parametrize("lengths", [(5_000,), (40,) * 200, (900, 30, 70_000), (50, 2_000) * 40])
def test_drawn_sub_batches_share_no_token(lengths):
    drawn = draw_batches(
        documents(*lengths), batches=4, batch_tokens=1_024, block_tokens=64, seed=3
    )
    tokens = [np.concatenate(blocks) for blocks in drawn]
    everything = np.concatenate(tokens)
    assert len(np.unique(everything)) == len(everything)
    for part, blocks in zip(tokens, drawn, strict=True):
        assert 900 < len(part) <= 1_024
        assert max(map(len, blocks)) <= 64


def test_padding_keeps_the_text_and_masks_the_rest():
    blocks = documents(3, 1, 2)
    ids, mask = pad_batch(blocks, pad=9, length=4)
    assert ids.tolist() == [[0, 1, 2, 9], [3, 9, 9, 9], [4, 5, 9, 9]]
    assert mask.sum(axis=1).tolist() == [3, 1, 2]
    for row, block in enumerate(blocks):
        assert np.array_equal(ids[row][mask[row]], block)


def test_packing_fills_blocks_and_remembers_whose_token_is_whose():
    ids, segments = pack(documents(3, 4), block_tokens=4, separator=99)
    assert ids.tolist() == [[0, 1, 2, 99], [3, 4, 5, 6]]
    assert segments.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert pack([], block_tokens=4)[0].shape == (0, 4)


def test_unigrams_are_counts():
    counts = count_unigrams([np.array([0, 2, 2]), np.array([], dtype=np.int64)], 4)
    assert counts.tolist() == [1, 0, 2, 0]
    with pytest.raises(ValueError, match="outside"):
        count_unigrams([np.array([4])], 4)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="positive"):
        cut_blocks([], block_tokens=0)
    with pytest.raises(ValueError, match="positive"):
        choose_batches([1], batches=0, batch_tokens=1, seed=0)
    with pytest.raises(ValueError, match="negative"):
        choose_batches([-1], batches=1, batch_tokens=1, seed=0)
    with pytest.raises(ValueError, match="no sequence"):
        pad_batch([])
    with pytest.raises(ValueError, match="does not fit"):
        pad_batch(documents(5), length=4)
    with pytest.raises(ValueError, match="positive"):
        pack([], block_tokens=0)

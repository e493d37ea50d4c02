import numpy as np
import pytest

from curate.corpus.tokens import (
    count_unigrams,
    cut_blocks,
    draw_batches,
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


def draw(*lengths, batches=4, batch_tokens=1_024, block_tokens=64, seed=3):
    return draw_batches(
        documents(*lengths),
        batches=batches,
        batch_tokens=batch_tokens,
        block_tokens=block_tokens,
        seed=seed,
    )


def owners(drawn, lengths):
    """The document of every sequence of each sub-batch."""
    stops = np.cumsum(lengths)
    return [
        [int(np.searchsorted(stops, block[0], side="right")) for block in part] for part in drawn
    ]


def test_sub_batches_are_seeded_full_and_share_no_document():
    lengths = np.random.default_rng(0).integers(5, 250, size=300)
    drawn = draw(*lengths, seed=1)
    mine = [set(part) for part in owners(drawn, lengths)]
    assert sum(map(len, mine)) == len(set.union(*mine))
    assert [sum(map(len, part)) for part in drawn] == pytest.approx([1_024] * 4, abs=64)
    flat = [np.concatenate(part).tolist() for part in drawn]
    again, other = draw(*lengths, seed=1), draw(*lengths, seed=2)
    assert flat == [np.concatenate(part).tolist() for part in again]
    assert flat != [np.concatenate(part).tolist() for part in other]


def test_a_small_shard_gives_equal_sub_batches():
    sizes = [sum(map(len, part)) for part in draw(*[100] * 8, batch_tokens=10_000)]
    assert sizes == [200] * 4
    assert sorted(map(len, draw(100, batches=3, batch_tokens=10_000, block_tokens=100))) == [
        0,
        0,
        1,
    ]
    assert draw(batches=2) == [[], []]


def test_text_of_long_documents_is_drawn_by_its_share():
    """One window of each document showed of these the long ones with a tenth of the text."""
    lengths = [40_000] * 4 + [80] * 2_000  # half of the text each
    share = [
        np.mean(np.concatenate([block for part in draw(*lengths, seed=seed) for block in part])
                < 160_000)
        for seed in range(40)
    ]  # fmt: skip
    assert np.mean(share) == pytest.approx(0.5, abs=0.03)


def test_every_token_is_as_likely_to_be_drawn():
    lengths = [1_280, 128, 640, 128, 128, 256]  # whole sequences: theory is plain
    counts = np.zeros(sum(lengths))
    for seed in range(600):
        for part in draw(*lengths, batches=2, batch_tokens=256, seed=seed):
            counts[np.concatenate(part)] += 1
    expected = 600 * 512 / sum(lengths)
    by_document = [c.mean() for c in np.split(counts, np.cumsum(lengths)[:-1])]
    assert by_document == pytest.approx([expected] * 6, rel=0.15)


def test_a_document_that_is_half_of_the_shard_is_in_every_sub_batch_alike():
    lengths = [50_000] + [100] * 500
    drawn = draw(*lengths)
    shares = [np.mean(np.concatenate(part) < 50_000) for part in drawn]
    assert max(shares) - min(shares) < 0.3


@pytest.mark.parametrize("lengths", [(5_000,), (40,) * 200, (900, 30, 70_000), (50, 2_000) * 40])
def test_drawn_sub_batches_share_no_token(lengths):
    drawn = draw(*lengths)
    tokens = [np.concatenate(blocks) for blocks in drawn]
    everything = np.concatenate(tokens)
    assert len(np.unique(everything)) == len(everything)
    for part, blocks in zip(tokens, drawn, strict=True):
        assert 900 < len(part) <= 1_024
        assert max(map(len, blocks)) <= 64


def test_unigrams_are_counts():
    counts = count_unigrams([np.array([0, 2, 2]), np.array([], dtype=np.int64)], 4)
    assert counts.tolist() == [1, 0, 2, 0]
    with pytest.raises(ValueError, match="outside"):
        count_unigrams([np.array([4])], 4)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="positive"):
        cut_blocks([], block_tokens=0)
    with pytest.raises(ValueError, match="positive"):
        draw(1, batches=0)

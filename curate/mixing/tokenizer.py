"""The tokenizer that counts the budget, one in each process."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from curate.corpus.tokens import Encode
from curate.errors import CurateError
from curate.mixing.binary import TokenSpec
from curate.records import ProbeInfo
from curate.task2vec.tokenizer import load_encode, load_tokenizer, vocabulary_size


def token_spec(name: str, info: ProbeInfo) -> TokenSpec:
    """Return what tokenised files need to know of a tokenizer.

    Raises:
        CurateError: it has no token that ends a text.
    """
    tokenizer = load_tokenizer(name, info)
    if tokenizer.eos_token_id is None:
        raise CurateError(f"tokenizer {name}: has no token that ends a text; name another")
    encode = partial(encode_named, name=name, info=info)
    return TokenSpec(encode, int(tokenizer.eos_token_id), vocabulary_size(tokenizer))


def encode_named(texts: list[str], *, name: str, info: ProbeInfo) -> list[npt.NDArray[np.int32]]:
    """Return the token ids of each text; the tokenizer is loaded once in each process."""
    return _loaded(name, info)(texts)


def count_tokens(texts: list[str], *, name: str, info: ProbeInfo) -> list[int]:
    """Return the tokens of each text; the tokenizer is loaded once in each process."""
    return [len(ids) for ids in _loaded(name, info)(texts)]


@lru_cache(maxsize=2)
def _loaded(name: str, info: ProbeInfo) -> Encode:
    return load_encode(name, info)[0]

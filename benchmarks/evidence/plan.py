"""What the bench trains and compares: its settings, its arms, which cells are near or far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FAMILIES = (
    {"formal_lean3", "formal_lean4", "formal_isabelle", "formal_coq", "formal_metamath"}
    | {"af_docstring_lean", "proofnet", "minif2f"},
    {"math_latex", "gsm8k", "math"},
    {"code_python", "tech_docs"},
    {"patents", "pubmed_abstracts"},
    {"fiction_gutenberg", "shakespeare", "wikipedia"},
)
"""Corpora and targets of one kind, named before any model was trained; others stand alone."""

BLOCK_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """What may change a result of the bench."""

    tokens: int = 150_000  # labels a run trains on, and tokens of its documents
    mixtures: int = 7  # random ones; one of natural proportions comes on top
    seeds: int = 2  # of the single sources
    mixture_seeds: int = 1
    size: str = "tiny"  # of `verification.small_model.SHAPES`
    batch_tokens: int = 1_024
    learning_rate: float = 0.0  # 0: what `verify` takes for such a start
    eval_tokens: int = 5_000  # of each target
    slice_tokens: int = 40_000  # held out of each corpus: half to rank by, half to evaluate
    targets: tuple[str, ...] = ("proofnet", "minif2f", "gsm8k", "math")  # or NAME=FILE,FILE
    probe: str = "builtin"  # that the arms are measured by
    layers: str = "all"  # of that probe
    embed_tokens: int = 8_192  # a sub-batch
    gradients: int = 4_096  # numbers of each mean gradient, for `transfer`
    pool: float = 4.0  # tokens kept of each corpus per token of an arm: filters take some out
    seed: int = 0
    model: str = ""  # that every run goes on from, in place of `size`
    lora: int = 0  # rank of adapters that learn in place of its weights

    @property
    def pool_tokens(self) -> int:
        """Tokens kept of each corpus."""
        return int(self.pool * self.tokens)


@dataclass(frozen=True, slots=True)
class Arm:
    """One kind of training data: its name and each corpus's share of its tokens."""

    name: str
    shares: dict[str, float]
    seeds: int = 1

    @property
    def source(self) -> str:
        """The corpus, where it is only one."""
        return next(iter(self.shares)) if len(self.shares) == 1 else ""


def plan_arms(corpora: list[str], settings: Settings) -> list[Arm]:
    """Return every single source, the natural mixture and random ones of 2 to 6 sources.

    Shares of a random mixture are uniform on the simplex of its sources (Dirichlet, all 1).
    """
    rng = np.random.default_rng([settings.seed, 17])
    arms = [Arm(name, {name: 1.0}, settings.seeds) for name in corpora]
    arms.append(
        Arm("natural", {name: 1 / len(corpora) for name in corpora}, settings.mixture_seeds)
    )
    for number in range(settings.mixtures):
        count = min(int(rng.integers(2, 7)), len(corpora))
        chosen = sorted(rng.permutation(len(corpora))[:count].tolist())
        shares = rng.dirichlet(np.ones(count))
        arms.append(
            Arm(
                f"mixture-{number:02d}",
                {corpora[c]: float(share) for c, share in zip(chosen, shares, strict=True)},
                settings.mixture_seeds,
            )
        )
    return arms


def is_same(arms: list[Arm], targets: list[str]) -> npt.NDArray[np.bool_]:
    """Return (arms, targets): the arm holds text of the corpus that the target was held out of."""
    return np.array([[arm.shares.get(target, 0.0) > 0 for target in targets] for arm in arms])


def is_near(arms: list[Arm], targets: list[str]) -> npt.NDArray[np.bool_]:
    """Return (arms, targets): at least half of the arm is of the target's family."""
    family = {name: number for number, names in enumerate(FAMILIES) for name in names}

    def near(arm: Arm, target: str) -> bool:
        own = family.get(target, target)
        return sum(s for name, s in arm.shares.items() if family.get(name, name) == own) >= 0.5

    return np.array([[near(arm, target) for target in targets] for arm in arms])

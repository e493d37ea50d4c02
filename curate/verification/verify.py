"""Is the forecast true? Check what may be compared, gather the documents, run the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from curate.errors import NOT_CONFIRMED, CurateError
from curate.mixing.build import read_mix_texts
from curate.mixing.decontaminate import index_target
from curate.mixing.dedup import Seen
from curate.mixing.documents import Filters, select_documents
from curate.mixing.mixture import describe_mixtures
from curate.records import (
    Index,
    Mix,
    MixSettings,
    Notify,
    Ranking,
    Shard,
    Target,
    Verification,
    VerifySettings,
    silent,
)
from curate.store.fingerprint import fingerprint
from curate.store.lock import locked
from curate.store.publish import (
    is_current,
    publish_json,
    publish_meta,
    read_json,
    read_meta,
    sweep,
)
from curate.task2vec.embed import embed_target
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.arms import Arm, plan_arms
from curate.verification.checks import check_chain, check_settings, check_unseen
from curate.verification.documents import cut_documents, draw_texts
from curate.verification.experiment import Experiment, run_experiment
from curate.verification.train import IntArray

MOST_TOKENS = 2_000_000
"""Tokens of a run where the settings name none and the mix has more."""

SPARE = 1.15
"""Tokens drawn from the mix per token needed: another tokenizer may count fewer."""

LEAKY = "neither mix nor controls were decontaminated: the drop may be items learned by heart"


def verify_mix(
    index: Index,
    ranking: Ranking,
    mix: Mix,
    target: Target,
    settings: VerifySettings,
    *,
    workspace: Path,
    device: str = "auto",
    workers: int = 0,
    notify: Notify = silent,
) -> Verification:
    """Train small models on the mix and on controls, and hold the drop against the forecast.

    The forecast, from controls and calibration mixes, is published as `verify/forecast.json`
    before the mix is trained on. Finished runs are never trained again; a killed verification
    goes on where it was.

    Args:
        index: the shards that the controls are drawn from.
        ranking: that the mix was built from.
        mix: what is verified.
        target: its eval split measures; its select split is what ranking saw.
        settings: sizes, tokens, seeds.
        workspace: results go to its folder `verify`.
        device: auto, cpu or cuda.
        workers: processes that train; 0 takes one a core. Never changes a result.
        notify: progress.

    Raises:
        CurateError: index, ranking, mix and target do not belong together, ranking has seen an
            eval item, a setting is out of its range, or a training diverged.
    """
    check_settings(settings)
    check_chain(index, ranking, mix, target)
    check_unseen(ranking, target)
    folder = workspace / "verify"
    with locked(folder):
        sweep(folder)
        probe = load_probe(settings.tokenizer, device=device)
        key = fingerprint(
            settings=settings,
            index=index.fingerprint,
            ranking=ranking.fingerprint,
            mix=mix.fingerprint,
            target=(target.name, target.select_digest, target.eval_digest),
            tokenizer=probe.info.tokenizer_digest,
        )
        if not is_current(folder, kind="verification", fingerprint=key):
            _verify(
                index,
                ranking,
                mix,
                target,
                settings,
                probe=probe,
                key=key,
                folder=folder,
                workers=workers,
                notify=notify,
            )
    return open_verification(workspace)


def open_verification(workspace: Path) -> Verification:
    """Read the published verification.

    Raises:
        CurateError: none there, or changed since it was published.
    """
    _, body = read_meta(workspace / "verify", kind="verification", body=dict[str, Any])
    return msgspec.convert(_with_nan(body), Verification)


def not_confirmed(verification: Verification) -> CurateError | None:
    """Return the error (exit code 4) of a forecast that was not confirmed, else None."""
    if verification.verdict == "confirmed":
        return None
    return CurateError(verification.sentence, exit_code=NOT_CONFIRMED)


# --- the documents of the arms ---


def _verify(
    index: Index,
    ranking: Ranking,
    mix: Mix,
    target: Target,
    settings: VerifySettings,
    *,
    probe: Probe,
    key: str,
    folder: Path,
    workers: int,
    notify: Notify,
) -> None:
    notify("read the mix", 0, 0)
    wanted = settings.tokens or min(mix.tokens, MOST_TOKENS)
    mix_texts = draw_texts(read_mix_texts(mix), tokens=int(wanted * SPARE), seed=settings.seed)
    mix_documents = encode_texts(probe, mix_texts)
    pool = min(wanted, sum(map(len, mix_documents)))  # tokens that every arm has
    arms = _plan(index, ranking, mix, settings, tokens=pool)
    like = _settings_of(mix)

    def arm_documents(arm: Arm) -> Sequence[IntArray]:
        if arm.role == "mix":
            return cut_documents(mix_documents, tokens=pool)
        chosen = select_documents(
            index,
            _by_shard(index, ranking, arm),
            budget=pool,
            encode=lambda texts: encode_texts(probe, texts),
            filters=_filters(target, like),
            max_epochs=_epochs(mix),
            refill="order" if arm.name == "worst" else "share",
            seed=settings.seed,
        )
        return encode_texts(probe, [each.text for each in chosen])

    texts, items = _draw_items(target, settings, probe)
    eos = probe.tokenizer.eos_token_id
    verification = run_experiment(
        Experiment(
            target=target.name,
            arms=arms,
            alignments=_alignments(
                index, ranking, target, arms, workspace=folder.parent, tokens=pool
            ),
            select=encode_texts(probe, list(target.select)),
            items=items,
            n_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
            vocab=probe.info.vocab + (eos is None),
            eos=probe.info.vocab if eos is None else int(eos),
            tokens=settings.tokens or pool,
            documents_key=fingerprint(
                index=index.fingerprint,
                mix=mix.fingerprint,
                target=(target.select_digest, target.eval_digest),
                tokenizer=probe.info.tokenizer_digest,
                pool=pool,
                seed=settings.seed,
            ),
            fingerprint=key,
            folder=folder,
            device=probe.device.type,
            notes=() if like.decontaminate else (LEAKY,),
        ),
        arm_documents,
        settings,
        workers=workers,
        notify=notify,
    )
    publish_json(folder / "verification.json", verification)
    publish_meta(
        folder,
        kind="verification",
        fingerprint=key,
        files=["forecast.json", "verification.json"],
        body=verification,
    )


def _plan(
    index: Index, ranking: Ranking, mix: Mix, settings: VerifySettings, *, tokens: int
) -> tuple[Arm, ...]:
    shards, alignments = _ranked(index, ranking)
    in_mix = {part.shard: part.tokens for part in mix.parts}
    room = np.array([int(shard.n_tokens * _epochs(mix)) for shard in shards])
    return plan_arms(
        alignments,
        room,
        np.array([in_mix.get(shard.name, 0) for shard in shards]),
        tokens=min(tokens, int(room.sum())),
        calibration=settings.calibration,
        seeds=settings.seeds,
    )


def _alignments(
    index: Index,
    ranking: Ranking,
    target: Target,
    arms: Sequence[Arm],
    *,
    workspace: Path,
    tokens: int,
) -> tuple[float, ...]:
    """Return the alignment of each arm's own mixture, as build-mix does for the mix."""
    mixtures = {arm.name: _by_shard(index, ranking, arm) for arm in arms}
    found = describe_mixtures(
        index,
        embed_target(target, index, workspace=workspace),
        mixtures,
        tokens=tokens,
        measure=ranking.measure,
    )
    return tuple(found[arm.name].alignment for arm in arms)


def _settings_of(mix: Mix) -> MixSettings:
    """Return the settings that a mix was built with, from its manifest."""
    manifest = read_json(Path(mix.folder) / "manifest.json", dict[str, Any])
    return msgspec.convert(manifest["settings"], MixSettings)


def _filters(target: Target, like: MixSettings) -> Filters:
    """Return the filters that the mix has passed, so that the controls pass the same."""
    return Filters(
        items=index_target(target, ngram=like.ngram) if like.decontaminate else None,
        seen=Seen(limit=like.near_documents) if like.dedup else None,
    )


def _by_shard(index: Index, ranking: Ranking, arm: Arm) -> dict[str, float]:
    """Return the tokens of each shard in an arm, the least aligned shard first."""
    shards, alignments = _ranked(index, ranking)
    order = np.argsort(alignments, kind="stable")
    return {shards[number].name: float(arm.tokens[number]) for number in order}


def _ranked(index: Index, ranking: Ranking) -> tuple[list[Shard], npt.NDArray[np.float64]]:
    """Return the shards that are ranked, in the order of the index, and their alignments."""
    by_name = {line.shard: line.alignment for line in ranking.shards}
    shards = [entry.shard for entry in index.shards if entry.shard.name in by_name]
    return shards, np.array([by_name[shard.name] for shard in shards], dtype=np.float64)


def _epochs(mix: Mix) -> float:
    """Return how often controls may repeat a shard: as often as the mix does."""
    return max([1.0, *(part.epochs for part in mix.parts)])


def _draw_items(
    target: Target, settings: VerifySettings, probe: Probe
) -> tuple[list[str], list[IntArray]]:
    """Return at most `eval_items` items of the eval split, in their order, and their tokens."""
    encoded = encode_texts(probe, list(target.eval))
    there = [number for number, tokens in enumerate(encoded) if len(tokens)]
    if not there:
        raise CurateError(f"target {target.name}: its eval split is empty; name another target")
    drawn = np.random.default_rng(settings.seed).permutation(there)[: settings.eval_items]
    chosen = sorted(drawn.tolist())
    return [target.eval[number] for number in chosen], [encoded[number] for number in chosen]


def _with_nan(value: Any) -> Any:
    """Turn JSON's null back into NaN: JSON has no number for it, and no field here is optional."""
    if isinstance(value, dict):
        return {name: _with_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_nan(part) for part in value]
    return float("nan") if value is None else value

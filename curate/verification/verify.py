"""Is the forecast true? Check what may be compared, gather the documents, run the experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from curate.corpus.harness import PREFIX
from curate.errors import NOT_CONFIRMED, CurateError
from curate.mixing.items import index_target
from curate.mixing.opened import read_mix_texts
from curate.records import (
    Index,
    Mix,
    Notify,
    Ranking,
    Run,
    Target,
    Verification,
    Watch,
    silent,
    unwatched,
)
from curate.settings import VerifySettings
from curate.store.fingerprint import fingerprint
from curate.store.leftovers import sweep
from curate.store.lock import locked
from curate.store.meta import is_current, publish_meta
from curate.store.publish import publish_json
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification import outcome
from curate.verification import train as trained
from curate.verification.blocks import IntArray
from curate.verification.checks import (
    alike_items,
    check_chain,
    check_published,
    check_settings,
    check_start,
    check_unseen,
)
from curate.verification.control_set import draw_control_set
from curate.verification.documents import draw_texts
from curate.verification.experiment import STAGES, run_experiment
from curate.verification.gather import (
    Chain,
    DocumentSource,
    arm_documents,
    look_at,
    plan,
    ranked,
    settings_of,
)
from curate.verification.prepared import Experiment
from curate.verification.published import open_verification
from curate.verification.start import find_start, train_settings
from curate.verification.tasks import find_outcomes

MOST_TOKENS = 2_000_000
"""Tokens of a run where the settings name none and the mix has more."""

SPARE = 1.15
"""Tokens drawn from the mix per token needed: another tokenizer may count fewer."""

NO_CONTROL_SET = (
    "no control set: the mix keeps duplicates, so none of its documents is surely held out"
)

FILTERS = ("decontaminate", "ngram", "dedup", "paraphrases", "encoder", "cosine")
"""Settings of a mix that every arm has passed."""

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
    compiled: bool = False,
    train: bool = True,
    notify: Notify = silent,
    watch: Watch = unwatched,
    on_run: Callable[[Run], None] | None = None,
    store: str = "",
) -> Verification:
    """Train small models on the mix and on controls, and hold the drop against the forecast.

    The forecast, from controls and calibration mixes, is published as `verify/forecast.json`
    before the mix is trained on, that of the controls before them. Finished runs are never
    trained again; a killed verification goes on where it was.

    Args:
        index: the shards that the controls are drawn from.
        ranking: that the mix was built from.
        mix: what is verified.
        target: its eval split measures; its select split is what ranking saw.
        settings: sizes, tokens, seeds.
        workspace: results go to its folder `verify`.
        device: auto, cpu or cuda.
        workers: processes that train; 0 takes one a core. Never changes a result.
        compiled: fuse the operations of the models that train, which takes a minute and pays
            for long runs on a GPU. Changes a result by rounding only.
        train: False only checks that the published verification is of just these inputs and
            settings, unchanged, and that its forecast was there before the mix trained.
        notify: progress.
        watch: told now and then how far each run is.
        on_run: told of each run that ends now.
        store: address of the workspace, where workers share no folder with this process: they
            fetch what a run needs from there, and publish it there.

    Raises:
        CurateError: index, ranking, mix and target do not belong together, ranking has seen an
            eval item, a setting is out of its range, or a training diverged.
    """
    check_settings(settings)
    check_chain(index, ranking, mix, target)
    check_unseen(ranking, target)
    folder = workspace / "verify"
    with locked(folder, notify=notify):
        sweep(folder)
        probe = load_probe(settings.model or settings.tokenizer, device=device)
        check_start(settings, probe)
        key = fingerprint(
            settings=settings,
            index=index.fingerprint,
            ranking=ranking.fingerprint,
            mix=mix.fingerprint,
            target=(target.name, target.select_digest, target.eval_digest),
            tokenizer=probe.info.tokenizer_digest,
            start=find_start(settings, probe),
            arithmetic=(outcome.ARITHMETIC, trained.ARITHMETIC),
        )
        if not train:
            check_published(folder, fingerprint=key)
        elif not is_current(folder, kind="verification", fingerprint=key):
            _verify(
                index,
                ranking,
                mix,
                target,
                settings,
                probe=probe,
                key=key,
                folder=folder,
                store=f"{store}/verify" if store else "",
                notify=notify,
                run=partial(
                    run_experiment,
                    workers=workers,
                    compiled=compiled,
                    notify=notify,
                    watch=watch,
                    on_run=on_run,
                ),
            )
    return open_verification(workspace)


def not_confirmed(verification: Verification) -> CurateError | None:
    """Return the error (exit code 4) of a forecast that was not confirmed, else None."""
    if verification.verdict == "confirmed":
        return None
    return CurateError(f"{verification.verdict}: {verification.sentence}", exit_code=NOT_CONFIRMED)


# --- what the experiment is set up from ---


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
    store: str,
    notify: Notify,
    run: Callable[..., Verification],
) -> None:
    find_outcomes(settings)  # what cannot be asked is said before anything is done
    chain = Chain(index, ranking, mix, target)
    notify("read the mix", 0, 0)
    wanted = settings.tokens or min(mix.tokens, MOST_TOKENS)
    mix_texts = draw_texts(read_mix_texts(mix), tokens=int(wanted * SPARE), seed=settings.seed)
    mix_documents = encode_texts(probe, mix_texts)
    pool = min(wanted, sum(map(len, mix_documents)))  # tokens that every arm has
    control, notes = _control_set(chain, settings, probe)
    source = DocumentSource(chain, probe, control, pool, settings.tokens or pool, settings.seed)
    texts, items = draw_items(target, settings, probe)
    shards, _ = ranked(chain)
    made_from = fingerprint(
        index=index.fingerprint,
        target=(target.select_digest, target.eval_digest),
        tokenizer=probe.info.tokenizer_digest,
        measure=ranking.measure,
        pool=pool,
        seed=settings.seed,
        filters=[getattr(settings_of(mix), name) for name in FILTERS],
    )
    verification = run(
        Experiment(
            target=target.name,
            arms=plan(chain, settings, tokens=pool, workspace=folder.parent, notify=notify),
            shards=tuple(shard.name for shard in shards),
            sources=tuple(shard.source for shard in shards),
            look=lambda mixtures: look_at(chain, mixtures, workspace=folder.parent, tokens=pool),
            select=encode_texts(probe, list(target.select)),
            items=items,
            control=[
                ids[: settings.block_tokens] for ids in encode_texts(probe, control) if len(ids)
            ],
            n_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
            train=train_settings(
                settings, probe, tokens=settings.tokens or pool, seed=settings.seed
            ),
            start=find_start(settings, probe),
            documents_key=fingerprint(made_from=made_from, mix=mix.fingerprint, control=control),
            corpus_key=made_from,
            fingerprint=key,
            folder=folder,
            device=probe.device.type,
            notes=(*notes, *alike_items(target), *_foreign(settings, target)),
            outcomes=find_outcomes(settings),
            store=store,
        ),
        lambda arm: arm_documents(source, arm, mix_documents),
        settings,
    )
    verification = dataclasses.replace(verification, mix_fingerprint=mix.fingerprint)
    publish_json(folder / "verification.json", verification)
    forecasts = [name for _, name, _ in STAGES if (folder / name).is_file()]
    publish_meta(
        folder,
        kind="verification",
        fingerprint=key,
        files=[*forecasts, "verification.json"],
        body=verification,
    )


def _control_set(
    chain: Chain, settings: VerifySettings, probe: Probe
) -> tuple[list[str], tuple[str, ...]]:
    """Return the texts of the control set, and warnings about what the arms are made of."""
    like = settings_of(chain.mix)
    notes = [] if like.decontaminate else [LEAKY]
    if not settings.control_items:
        return [], tuple(notes)
    control = draw_control_set(
        chain.index,
        (text for text, _ in read_mix_texts(chain.mix)),
        encode=lambda texts: encode_texts(probe, texts),
        items=index_target(chain.target, ngram=like.ngram),
        count=settings.control_items,
        seed=settings.seed,
    )
    if len(control) < settings.control_items / 4:
        notes.append(
            f"only {len(control)} documents of the control set are outside the mix: what the gain "
            "costs elsewhere is roughly known"
        )
    return control, tuple(notes)


def _foreign(settings: VerifySettings, target: Target) -> list[str]:
    """Return a warning for outcomes whose items no arm was cleaned of."""
    others = [name for name in settings.outcomes if name.removeprefix(PREFIX) != target.name]
    if not others:
        return []
    return [
        f"the arms were decontaminated against {target.name}, not against {', '.join(others)}: "
        "its items may be among the documents"
    ]


def draw_items(
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

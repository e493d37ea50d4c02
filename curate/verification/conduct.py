"""Set the experiment up, the documents of every arm first, and run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.corpus.harness import PREFIX
from curate.errors import CurateError
from curate.mixing.items import index_target
from curate.mixing.opened import read_mix_texts
from curate.records import Notify, Run, Target, Watch
from curate.settings import VerifySettings
from curate.store.fingerprint import fingerprint
from curate.store.meta import is_current, publish_meta
from curate.store.publish import publish_json
from curate.task2vec.probe import Probe, encode_texts, load_probe
from curate.verification.blocks import IntArray
from curate.verification.chain import Chain, key_of, learner_of
from curate.verification.checks import alike_items, check_published, check_start
from curate.verification.control_set import draw_control_set
from curate.verification.documents import draw_texts
from curate.verification.experiment import STAGES, run_experiment
from curate.verification.gather import (
    DocumentSource,
    arm_documents,
    look_at,
    plan,
    ranked,
    settings_of,
)
from curate.verification.prepared import Experiment
from curate.verification.start import find_start, train_settings
from curate.verification.tasks import find_outcomes

MOST_TOKENS = 2_000_000
"""Tokens of a run where the settings name none and the mix has more."""

SPARE = 1.15
"""Tokens drawn from the mix per token needed: another tokenizer may count fewer."""

FILTERS = ("decontaminate", "ngram", "dedup", "paraphrases", "encoder", "cosine")
"""Settings of a mix that every arm has passed."""

LEAKY = "neither mix nor controls were decontaminated: the drop may be items learned by heart"


@dataclass(frozen=True, slots=True)
class Hands:
    """Who does the work, and who is told of it; no result depends on any."""

    workers: int  # processes that train; 0 chooses
    compiled: bool  # whether the operations of the models are fused first
    notify: Notify
    watch: Watch
    on_run: Callable[[Run], None] | None
    store: str  # address of the verification, where workers share no folder with this process


def conduct(
    chain: Chain,
    settings: VerifySettings,
    *,
    folder: Path,
    device: str,
    train: bool,
    hands: Hands,
) -> None:
    """Verify a mix, unless that is published already; see `verify_mix`.

    Args:
        chain: what is verified.
        settings: sizes, tokens, seeds.
        folder: of the verification.
        device: auto, cpu or cuda.
        train: False only checks what is published.
        hands: who does it.
    """
    probe = load_probe(settings.model or settings.tokenizer, device=device)
    check_start(settings, probe)
    info = probe.info
    key = key_of(chain, settings, tokenizer=info.tokenizer_digest, revision=info.revision)
    if not train:
        check_published(folder, fingerprint=key)
    elif not is_current(folder, kind="verification", fingerprint=key):
        _verify(chain, settings, probe, key, folder, hands)


def _verify(
    chain: Chain, settings: VerifySettings, probe: Probe, key: str, folder: Path, hands: Hands
) -> None:
    find_outcomes(settings)  # what cannot be asked is said before anything is done
    index, ranking, mix, target = chain.index, chain.ranking, chain.mix, chain.target
    hands.notify("read the mix", 0, 0)
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
    verification = run_experiment(
        Experiment(
            target=target.name,
            arms=plan(chain, settings, tokens=pool, workspace=folder.parent, notify=hands.notify),
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
            start=find_start(settings, probe.info.revision),
            documents_key=fingerprint(made_from=made_from, mix=mix.fingerprint, control=control),
            corpus_key=made_from,
            fingerprint=key,
            folder=folder,
            device=probe.device.type,
            notes=(*notes, *alike_items(target), *_foreign(settings, target)),
            outcomes=find_outcomes(settings),
            store=hands.store,
        ),
        lambda arm: arm_documents(source, arm, mix_documents),
        settings,
        workers=hands.workers,
        compiled=hands.compiled,
        notify=hands.notify,
        watch=hands.watch,
        on_run=hands.on_run,
    )
    verification = dataclasses.replace(
        verification,
        mix_fingerprint=mix.fingerprint,
        learner=learner_of(target, settings, probe.info),
    )
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
        f"{'its' if len(others) == 1 else 'their'} items may be among the documents"
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

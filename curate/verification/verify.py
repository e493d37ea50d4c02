"""Is the forecast true? Check what may be compared; what is published already is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
from curate.store.leftovers import sweep
from curate.store.lock import locked
from curate.store.meta import is_current
from curate.task2vec.model_files import find_revision
from curate.task2vec.tokenizer import digest_of_file
from curate.verification.chain import Chain, key_of
from curate.verification.checks import (
    check_chain,
    check_published,
    check_settings,
    check_unseen,
)
from curate.verification.published import open_verification


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
    chain, folder = Chain(index, ranking, mix, target), workspace / "verify"
    with locked(folder, notify=notify):
        sweep(folder)
        key = _key_without_model(chain, settings)
        if not key or not is_current(folder, kind="verification", fingerprint=key):
            from curate.verification.conduct import Hands, conduct  # seconds: it trains

            conduct(
                chain,
                settings,
                folder=folder,
                device=device,
                train=train,
                hands=Hands(workers, compiled, notify, watch, on_run, store and f"{store}/verify"),
            )
        elif not train:
            check_published(folder, fingerprint=key)
    return open_verification(workspace)


def _key_without_model(chain: Chain, settings: VerifySettings) -> str:
    """Return the key of a verification, "" where only the loaded model tells it."""
    digest = digest_of_file(settings.model or settings.tokenizer, chain.index.probe)
    revision = find_revision(settings.model) if digest and settings.model else ""
    return key_of(chain, settings, tokenizer=digest, revision=revision) if digest else ""

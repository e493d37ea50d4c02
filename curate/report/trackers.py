"""Training runs sent to an experiment tracker: one run here is one run there, whole, at its end.

Where to is the tracker's own affair, by its own variables (WANDB_MODE, MLFLOW_TRACKING_URI,
TRACKIO_DIR). Steps are tokens seen. What was sent is written down, so that no run is sent twice
and none is forgotten after a tracker was out of reach.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from curate.errors import CurateError
from curate.records import Run

PROJECT = "curate-verify"

Series = list[tuple[int, dict[str, float]]]
"""(tokens seen, name → value), tokens rising."""


def open_tracker(
    name: str, *, folder: Path, publish: Callable[[Path, bytes], object]
) -> Callable[[Run], None] | None:
    """Return what sends a finished run to a tracker, once; None for no tracker.

    Args:
        name: wandb, trackio, mlflow, tensorboard, or nothing.
        folder: for the list of what was sent, and files of a tracker that keeps them where it is
            told to.
        publish: writes the list, whole or not at all.

    Returns:
        A function that raises `CurateError` where the tracker refuses a run.

    Raises:
        CurateError: the package is not installed.
    """
    openers = {
        "wandb": _open_wandb,
        "trackio": _open_trackio,
        "mlflow": _open_mlflow,
        "tensorboard": _open_tensorboard,
    }
    if not name:
        return None
    try:
        send, failures = openers[name](folder)
    except ImportError:
        raise CurateError(f"--track {name}: not installed; pip install 'curate[{name}]'") from None

    caught: Failures = (OSError, *failures)
    ledger = folder / f"{name}.sent"

    def send_run(run: Run) -> None:
        line = f"{run.arm}-seed{run.seed} {run.started_at}"
        try:
            sent = ledger.read_text(encoding="utf-8") if ledger.is_file() else ""
            if line in sent.splitlines():
                return
            send(f"{run.arm}-seed{run.seed}", _facts(run), _series(run))
            publish(ledger, f"{sent}{line}\n".encode())
        except caught as error:
            raise CurateError(
                f"--track {name}: {error}; mend it, and the same command sends what is missing"
            ) from None

    return send_run


Send = Callable[[str, dict[str, Any], Series], None]
Failures = tuple[type[Exception], ...]
"""What a tracker raises where it is not reached or not logged in to, beside `OSError`."""


def _open_wandb(folder: Path) -> tuple[Send, Failures]:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)

    def send(name: str, facts: dict[str, Any], series: Series) -> None:
        run = wandb.init(
            project=PROJECT, name=name, config=facts, dir=folder, reinit="create_new",
            settings=wandb.Settings(silent=True),
        )  # fmt: skip
        for tokens, values in series:
            run.log(values, step=tokens)
        run.finish()

    return send, (wandb.Error,)


def _open_trackio(folder: Path) -> tuple[Send, Failures]:
    import trackio

    def send(name: str, facts: dict[str, Any], series: Series) -> None:
        run = trackio.init(project=PROJECT, name=name, config=facts, embed=False)
        for tokens, values in series:
            run.log(values, step=tokens)
        trackio.finish()

    return send, (RuntimeError, ValueError)


def _open_mlflow(folder: Path) -> tuple[Send, Failures]:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def send(name: str, facts: dict[str, Any], series: Series) -> None:
        client = MlflowClient()
        there = client.get_experiment_by_name(PROJECT)
        experiment = there.experiment_id if there else client.create_experiment(PROJECT)
        run = client.create_run(experiment, run_name=name).info.run_id
        for key, fact in facts.items():
            client.log_param(run, key, fact)
        for tokens, values in series:
            for key, value in values.items():
                client.log_metric(run, key, value, step=tokens)
        client.set_terminated(run)

    return send, (MlflowException,)


def _open_tensorboard(folder: Path) -> tuple[Send, Failures]:
    from torch.utils.tensorboard import SummaryWriter

    def send(name: str, facts: dict[str, Any], series: Series) -> None:
        with SummaryWriter(str(folder / "tensorboard" / name)) as writer:
            for key, fact in facts.items():
                writer.add_text(key, str(fact))
            for tokens, values in series:
                for key, value in values.items():
                    writer.add_scalar(key, value, tokens)

    return send, ()


def _facts(run: Run) -> dict[str, Any]:
    return {
        "arm": run.arm,
        "seed": run.seed,
        "tokens": run.tokens,
        "started_at": run.started_at,
        "seconds": round(run.seconds, 3),
        "forecast": run.forecast,
    }


def _series(run: Run) -> Series:
    """Return the losses in training and on eval items, and at the end those of the whole split."""
    found: dict[int, dict[str, float]] = {}
    for tokens, loss in run.curve:
        found.setdefault(tokens, {})["train/loss"] = loss
    for tokens, loss in run.points:
        found.setdefault(tokens, {})["eval/loss_of_some_items"] = loss
    last = found.setdefault(run.tokens, {})
    last |= {"eval/loss": run.loss, "eval/bpb": run.bpb}
    if run.control_tokens:
        last["control/loss"] = sum(run.control_nats) / sum(run.control_tokens)
    return sorted(found.items())

"""What is published: forecasts before the arms train, what they rest on, and the outcome."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from curate.errors import CurateError
from curate.mixing.laws import Views, forecast_losses
from curate.records import Floats, Forecast, Verification
from curate.store.fingerprint import fingerprint
from curate.store.meta import read_meta
from curate.store.publish import publish_bytes, publish_json, read_json, read_json_if_whole


@dataclass(frozen=True, slots=True)
class MeasuredArm:
    """One mixture whose loss is known: a point that forecasts are fitted on."""

    arm: str
    documents: str  # digest of its documents
    shares: dict[str, float]  # shard → share of the tokens
    pairs: float  # nats/token of the select split under the token pairs of those documents
    loss: float  # nats/token on the eval split, mean over seeds
    seeds: int
    context: str  # digest of corpus, target, model and tokens: only equal ones compare


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """What is said of one arm before it trains, nats/token."""

    arm: str
    loss: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PublishedForecast:
    """What a forecast file holds."""

    arms: tuple[ArmForecast, ...]
    drop: Forecast | None  # of the mix against random; None while random is not measured
    law: str
    law_error: float  # on left-out mixes, root mean square, nats/token
    mean_error: float  # of the mean alone
    points: tuple[MeasuredArm, ...]
    confidence: float
    made_at: str  # UTC, ISO 8601
    blind: bool  # no run of these arms, rivals apart, was there when it was made
    key: str  # digest of what it was made from
    digest: str = ""  # of all the above

    def of(self, arm: str) -> ArmForecast | None:
        """Return what is said of an arm."""
        return next((each for each in self.arms if each.arm == arm), None)


@dataclass(frozen=True, slots=True)
class Look:
    """Mixtures as the index sees them, row by row."""

    alignments: Floats  # (n,) as the ranking measures it
    shares: Floats  # (n, p) of the sources, or of the shards where there is one source
    embeddings: Floats  # (n, d) logarithms


def publish_forecast(
    path: Path,
    *,
    points: Sequence[MeasuredArm],
    arms: Mapping[str, float],
    look: Look,
    random_loss: float | None,
    confidence: float,
    blind: bool,
) -> PublishedForecast:
    """Forecast arms from measured points and publish it; keep what is there if it is the same.

    It is published twice, so that one copy can be damaged and put back from the other.

    Args:
        path: of the forecast.
        points: measured mixtures, at least two.
        arms: name → cross-entropy of the select split under the token pairs of the mixtures to
            forecast, the mix first.
        look: of the points, then of the arms.
        random_loss: measured; None where it is not.
        confidence: of the intervals.
        blind: no run of these arms is there, those of rivals apart.

    Raises:
        CurateError: what is there was changed since it was published.
    """
    key = fingerprint(points=points, arms=arms, confidence=confidence)
    if (there := _kept(path, key)) is not None:
        return there
    pairs = np.array([*(p.pairs for p in points), *arms.values()])
    views = Views(forecast_scalars(pairs), look.shares, look.embeddings)
    law, found = forecast_losses(views, np.array([p.loss for p in points]), confidence=confidence)
    made_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    said = tuple(
        ArmForecast(name, each.loss, each.low, each.high)
        for name, each in zip(arms, found, strict=True)
    )
    basis = f"{len(points)} measured mixtures; loss from {law.name}"
    drop = None
    if random_loss is not None:
        mix = said[0]
        drop = Forecast(
            random_loss - mix.loss, random_loss - mix.high, random_loss - mix.low, basis, made_at
        )
    published = PublishedForecast(
        arms=said,
        drop=drop,
        law=law.name,
        law_error=law.error,
        mean_error=law.mean_error,
        points=tuple(points),
        confidence=confidence,
        made_at=made_at,
        blind=blind,
        key=key,
    )
    published = dataclasses.replace(published, digest=digest_forecast(published))
    publish_json(forecast_copy(path, key), published)
    publish_json(path, published)
    return published


def forecast_scalars(pairs: Floats) -> dict[str, Floats]:
    """Return the numbers of mixtures that losses are fitted on, by the names that are shown.

    Args:
        pairs: (n,) cross-entropy of the target under the token pairs of each, nats/token.
    """
    return {
        "cross-entropy of token pairs": pairs,
        # For its bend: of text that is far from the target, how far matters less.
        "logarithm of the cross-entropy of token pairs": np.log(pairs),
    }


def forecast_copy(path: Path, key: str) -> Path:
    """Return where a second copy of a forecast lies: nobody could make it again."""
    return path.parent / "forecasts" / f"{key[:32]}.json"


def _kept(path: Path, key: str) -> PublishedForecast | None:
    """Return the forecast of this key from either of its places, and put it back in the other."""
    places = (path, forecast_copy(path, key))
    damaged: CurateError | None = None
    for place, other in (places, places[::-1]):
        try:
            there = read_forecast(place) if place.is_file() else None
        except CurateError as error:
            damaged = error
            continue
        if there is not None and there.key == key:
            if not other.is_file() or other.read_bytes() != place.read_bytes():
                publish_bytes(other, place.read_bytes())
            return there
    if damaged is not None:
        raise damaged
    return None


def read_forecast(path: Path) -> PublishedForecast:
    """Read a forecast.

    Raises:
        CurateError: absent, or not what was published.
    """
    found = read_json(path, PublishedForecast)
    if found.digest != digest_forecast(found):
        raise CurateError(
            f"{path}: changed since it was published (it names the digest {found.digest[:16]}, its "
            f"content has {digest_forecast(found)[:16]}); put the original back"
        )
    return found


def keep_points(folder: Path, points: Sequence[MeasuredArm]) -> None:
    """Keep measured mixtures for later verifications of the same corpus."""
    for point in points:
        key = fingerprint(context=point.context, documents=point.documents)
        publish_json(folder / f"{key[:32]}.json", point)


def earlier_points(
    folder: Path, *, context: str, besides: Sequence[str]
) -> tuple[MeasuredArm, ...]:
    """Return the mixtures that earlier verifications measured in the same context.

    Args:
        folder: of `keep_points`.
        context: of this verification.
        besides: digests of documents that this verification has itself.
    """
    there = [read_json_if_whole(path, MeasuredArm) for path in sorted(folder.glob("*.json"))]
    return tuple(
        point
        for point in there
        if point and point.context == context and point.documents not in besides
    )


def digest_forecast(forecast: PublishedForecast) -> str:
    """Return the digest of all that a forecast says, its own digest apart."""
    return fingerprint(forecast=dataclasses.replace(forecast, digest=""))


def open_verification(workspace: Path) -> Verification:
    """Read the published verification.

    Raises:
        CurateError: none there, or changed since it was published.
    """
    if not (workspace / "verify" / "meta.json").is_file():
        raise CurateError(f"{workspace}: nothing verified yet; run curate verify first")
    _, body = read_meta(workspace / "verify", kind="verification", body=dict[str, Any])
    return msgspec.convert(_with_nan(body), Verification)


def _with_nan(value: Any) -> Any:
    """Turn JSON's null back into NaN: JSON has no number for it, and no field here is optional."""
    if isinstance(value, dict):
        return {name: _with_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_nan(part) for part in value]
    return float("nan") if value is None else value

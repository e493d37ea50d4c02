"""The records as JSON lines: what scripts read. Keys are kept; new ones are added behind."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from curate.records import Forecast, Index, Interval, Mix, Ranking, Verification


def ranking_json(ranking: Ranking) -> str:
    """Return one JSON object a line and shard, best first, without a last line break."""
    names = ("rank", "shard", "source", "tokens", "alignment", "low", "high")
    of_all = {name: getattr(ranking, name) for name in ("target", "method", "measure")}
    return "\n".join(
        to_json({name: getattr(shard, name) for name in names} | of_all) for shard in ranking.shards
    )


def mix_json(mix: Mix) -> str:
    """Return the mix as one JSON object."""
    return to_json(
        {
            "budget": mix.budget,
            "tokens": mix.tokens,
            "alignment": mix.alignment,
            "forecast": _forecast(mix.forecast),
            "out": mix.folder,
            "sources": mix.sources,
        }
    )


def verification_json(verification: Verification) -> str:
    """Return the verdict and what it rests on as one JSON object."""
    drop = verification.drop
    names = (
        *("arm", "loss", "low", "high", "seeds", "bpb", "perplexity", "alignment", "control_loss"),
        *("forecast_loss", "forecast_low", "forecast_high", "forecast_at", "trained_at"),
    )
    whole = (
        "law",
        "forecast_digest",
        "multiplier",
        "r2",
        "r2_low",
        "r2_high",
        "p_value",
        "spearman",
        "seeds_needed",
    )
    return to_json(
        {
            "verdict": verification.verdict,
            "drop": _interval(drop),
            "forecast": _forecast(verification.forecast),
            "arms": [{name: getattr(arm, name) for name in names} for arm in verification.arms],
            "price": _interval(verification.price),
            "slope": _interval(verification.slope),
            "outcomes": [
                {
                    "task": name,
                    "gain": _interval(gain),
                    "arms": {arm.arm: _interval(arm.outcomes[name]) for arm in verification.arms},
                }
                for name, gain in verification.outcomes.items()
            ],
            **{name: getattr(verification, name) for name in whole},
        }
    )


def _interval(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def index_json(index: Index) -> str:
    """Return one JSON object a line and shard: shard, source, documents, tokens, digest."""
    shards = [indexed.shard for indexed in index.shards]
    return "\n".join(
        to_json(
            {
                "shard": shard.name,
                "source": shard.source,
                "documents": shard.n_documents,
                "tokens": shard.n_tokens,
                "digest": shard.digest,
            }
        )
        for shard in shards
    )


def ledger_json(index: Index) -> str:
    """Return one JSON object a line and file: what became of its records."""
    names = ("path", "n_bytes", "seen", "accepted", "rejected", "error", "digest")
    return "\n".join(
        to_json({name: getattr(ledger, name) for name in names}) for ledger in index.ledgers
    )


def to_json(value: Any) -> str:
    """Return strict JSON in ASCII (safe on any terminal); what is not finite becomes null."""
    return json.dumps(_finite(value), ensure_ascii=True, allow_nan=False)


def records_json(records: Sequence[Any]) -> str:
    """Return one JSON object a line and record (a dataclass)."""
    return "\n".join(to_json(asdict(record)) for record in records)


def _forecast(forecast: Forecast) -> dict[str, float]:
    return {"drop": forecast.drop, "low": forecast.low, "high": forecast.high}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else None  # 0 has no sign
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _finite(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

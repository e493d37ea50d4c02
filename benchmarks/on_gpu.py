"""Every figure of the documentation that needs a GPU, made on the GPUs of this machine.

    python benchmarks/on_gpu.py --out build/gpu.jsonl
    make gpu

Runs the GPU tests, then each benchmark; a line of JSON for each: what was run, on which card, what
it printed. The last line says how much faster all GPUs index than one. What fails is on record
too, and the others go on. Some hours on one card; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

COMMANDS = (
    "-m pytest -q --no-cov -m gpu",
    "benchmarks/fisher.py --device cuda --signs 0 32 --memory --gradients --json",
    "benchmarks/train.py --size 124M --tokens 20M --json",
    "benchmarks/train.py --size 124M --tokens 20M --compile --json",
    "benchmarks/train.py --size 3M --tokens 1M --side-by-side 1 12 --json",
    "benchmarks/pipeline.py --shards 1000 --shard-tokens 65536 --device cuda --json",
)
PIPELINE = COMMANDS[-1]


def run(command: str, gpus: str) -> dict[str, Any]:
    """Run a command of this repository where only these GPUs are seen; return its record."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=HERE.parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": gpus},
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "command": f"python {command}",
        "gpus": gpus,
        "exit_code": done.returncode,
        "wall_s": round(time.monotonic() - began, 1),
        "printed": [_read(line) for line in done.stdout.splitlines() if line.strip()],
        "error": done.stderr[-2000:] if done.returncode else "",
    }


def scaling(one: dict[str, Any], all_: dict[str, Any]) -> dict[str, Any]:
    """Return how much faster all GPUs index than one, over their number (the aim: 0.9)."""
    rates = [each["printed"][-1]["shards"] / each["printed"][-1]["wall_s"] for each in (one, all_)]
    count = len(all_["gpus"].split(","))
    return {"gpus": count, "faster": rates[1] / rates[0], "each": rates[1] / rates[0] / count}


def _read(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def main() -> None:
    """Run all, and write what they printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gpu.jsonl"))
    parser.add_argument("--json", action="store_true", help="print the lines too")
    given = parser.parse_args()
    import torch

    from curate.engine.run import visible_gpus

    if not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: run this on a machine with one")
    named = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    gpus = visible_gpus()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    with given.out.open("w", encoding="utf-8") as stream:

        def record(found: dict[str, Any]) -> dict[str, Any]:
            line = json.dumps(named | found)
            stream.write(f"{line}\n")
            stream.flush()
            short = f"{found.get('command', 'scaling')} {found.get('exit_code', '')}"
            print(line if given.json else short, flush=True)
            return found

        made = [record(run(command, gpus[0])) for command in COMMANDS]
        if len(gpus) > 1:
            every = record(run(PIPELINE, ",".join(gpus)))
            if made[-1]["exit_code"] == every["exit_code"] == 0:
                record(scaling(made[-1], every))
    sys.exit(any(each["exit_code"] for each in made))


if __name__ == "__main__":
    main()

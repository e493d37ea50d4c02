"""Run the demo and keep what it printed: python examples/record.py [FOLDER] (make record).

Writes examples/demo.txt (all of stdout; only the path of the folder is left out), the block of
the README between its marks, the figures of the pages and the screenshots of the report. Then the
commands of the tutorial are run in the folder of the demo, with its curate.toml, and what they
print goes into its blocks. With a FOLDER that holds a finished demo, nothing is run again.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
# The settings, and each command of the tutorial that stands with what it printed
STEP = re.compile(r"^```(?:toml\n(.*?)|text\n\$ curate ([^\n]*)\n(.*?))^```$", re.M | re.S)
NOT_CONFIRMED = 4  # exit code of `curate verify`
LONGEST = 14  # lines of an output; of a longer one the middle is left out, and marked
TRANSCRIPT = Path(__file__).with_name("demo.txt")
BLOCK = re.compile(r"<!-- demo -->.*?<!-- /demo -->", re.DOTALL)
FIGURES = ROOT / "docs" / "figures.py"


def run_demo(folder: Path) -> str:
    """Run the demo as a person would, in a folder of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "curate", "demo", "--folder", "demo"],
        cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout.replace(f"{folder.resolve()}/", "")


def readme_with(readme: str, transcript: str) -> str:
    """Return the README with the transcript in its block; ends of lines lose their spaces."""
    text = "\n".join(line.rstrip() for line in transcript.strip("\n").splitlines())
    return BLOCK.sub(
        lambda _: f"<!-- demo -->\n\n```text\n$ curate demo\n{text}\n```\n\n<!-- /demo -->", readme
    )


def shortened(printed: str) -> str:
    """Return an output without the middle of a long one and the spaces at the ends of its lines."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    if len(lines) > LONGEST:
        hidden = len(lines) - LONGEST + 1
        lines = [*lines[:8], f"… {hidden} lines", *lines[hidden + 8 :]]
    return "\n".join(lines)


def tutorial_with(page: str, home: Path) -> str:
    """Return the tutorial with what its commands print now, run in their order in `home`."""

    def run(step: re.Match[str]) -> str:
        settings, command, _ = step.groups()
        if settings:
            (home / "curate.toml").write_text(settings, encoding="utf-8")
            return step[0]
        done = subprocess.run(
            [sys.executable, "-m", "curate", *command.split()],
            cwd=home, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if done.returncode not in (0, NOT_CONFIRMED):  # a forecast that fails is shown as it is
            raise subprocess.CalledProcessError(done.returncode, command)
        printed = shortened(done.stdout.replace(f"{home.resolve()}/", ""))
        return f"```text\n$ curate {command}\n{printed}\n```"

    (home / "curate.toml").unlink(missing_ok=True)
    return STEP.sub(run, page)


def main(folder: Path) -> None:
    """Record a demo: transcript, README, figures."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "demo.txt"
    if not kept.is_file():
        kept.write_text(run_demo(folder), encoding="utf-8")
    TRANSCRIPT.write_text(kept.read_text(encoding="utf-8"), encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme_with(readme.read_text("utf-8"), TRANSCRIPT.read_text("utf-8"))
    readme.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, FIGURES, folder / "demo" / ".curate", "demo"], check=True)
    shots = [(folder / "demo" / "report.html").resolve(), FIGURES.with_name("figures")]
    subprocess.run([sys.executable, "-m", "tests.browser", *shots], cwd=ROOT, check=True)
    page = tutorial_with(TUTORIAL.read_text("utf-8"), folder / "demo")
    TUTORIAL.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/record"))

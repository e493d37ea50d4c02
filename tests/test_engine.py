"""Work items: order, errors with the worker's traceback, deaths, interrupts."""

import dataclasses
import fcntl
import os
import shlex
import signal
import subprocess
import sys
import termios
import textwrap
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from curate.engine import listing, on_ray
from curate.engine.ahead import ahead
from curate.engine.batch import run_batch, task_of_array, work_through
from curate.engine.crew import receive, send, start_worker, stop_worker
from curate.engine.listing import from_text, to_text
from curate.engine.local import count_cores, run_local
from curate.engine.on_ray import connected, marked
from curate.engine.outcome import judge
from curate.engine.run import engine_here, run_items, visible_gpus, working_here, working_on
from curate.errors import CannotWriteError, CurateError
from curate.mixing.tokenizer import count_tokens
from curate.settings import EmbedSettings, RunSettings
from curate.store.fingerprint import digest_file
from curate.store.owner import this_owner
from curate.task2vec.items import EmbedItem

HELPERS = """
import os, signal, time
from pathlib import Path
from curate.errors import CannotWriteError, CurateError

def double(x):
    time.sleep(0.2 if x == 0 else 0)
    return 2 * x

def double_late(x):
    time.sleep(2 if x == 0 else 0)
    return 2 * x

def fail(x):
    if x == 1:
        return {}["no such key"]
    time.sleep(30)

def refuse(x):
    raise CurateError(f"item {x}: refused", exit_code=6)

def die(x):
    os.kill(os.getpid(), signal.SIGKILL)

def threads(x):
    return os.environ["OMP_NUM_THREADS"], os.getpid()

def waiting(x):
    return os.environ["OMP_WAIT_POLICY"]

def linger(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)

def note(item):
    # (folder, number, what): leave a mark of each try, and of who else is at work
    folder, number, what = item
    here = Path(folder, f"now-{number}")
    here.touch()
    others = len(list(Path(folder).glob("now-*"))) - 1
    tries = len(list(Path(folder).glob(f"try-{number}-*")))
    Path(folder, f"try-{number}-{tries}-{others}").touch()
    time.sleep(0.1)
    here.unlink()
    if what == "refuse":
        raise CurateError(f"item {number}: refused")
    if what == "crash":
        {}["no such key"]
    if what == "tell":
        raise OSError("refused: https://me:canary@host/a?sig=canary " + os.environ["MY_TOKEN"])
    if what == "die" or (what == "die once" and tries == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "full disk":
        raise CannotWriteError("disk: full")
    return number

def loads(x):
    loads.count = getattr(loads, "count", 0) + 1
    return os.getpid(), loads.count

def large(x):
    return bytes(50_000_000)

def not_to_be_packed(x):
    return lambda: x

def gpu(x):
    time.sleep(0.2)
    return os.environ.get("CUDA_VISIBLE_DEVICES")
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    (tmp_path / "work_of_test.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("work_of_test", None)
    import work_of_test

    return work_of_test


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(work, workers):
    told = []
    found = run_local(
        work.double, range(5), workers=workers, notify=lambda *told_: told.append(told_), what="x"
    )
    assert list(found) == [0, 2, 4, 6, 8]
    assert told == [("x", done, 5) for done in range(1, 6)]


def test_threads_of_this_process_share_the_work_and_keep_its_order(work, tmp_path):
    most = 0

    def items():
        nonlocal most
        for number in range(6):
            most = max(most, number)
            yield number

    found = run_local(work.double, items(), slots=2)
    assert next(found) == 0 and most == 1  # two in hand, the second done before the first
    assert list(found) == [2, 4, 6, 8, 10]
    with pytest.raises(CurateError, match="item 3: refused"):
        list(run_local(work.refuse, [3, 4], slots=2))


def test_no_items_are_no_work(work):
    assert list(run_local(work.double, [], workers=2)) == []


@pytest.mark.parametrize(("given", "found"), [("", "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_workers_wait_without_spinning_unless_told_otherwise(
    work, monkeypatch, given, found
):
    """The commands set it for themselves; callers from Python have an environment of their own."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert list(run_local(work.waiting, [1, 2], workers=2)) == [found] * 2
    assert os.environ.get("OMP_WAIT_POLICY", "") == given


def test_each_worker_computes_on_one_thread_in_its_own_process(work):
    found = list(run_local(work.threads, [1, 2], workers=2))
    assert [threads for threads, _ in found] == ["1", "1"]
    assert os.getpid() not in [pid for _, pid in found]


def test_an_error_keeps_its_type_and_the_workers_traceback_and_stops_the_rest(work):
    started = time.monotonic()
    with pytest.raises(KeyError, match="no such key") as caught:
        list(run_local(work.fail, [0, 1], workers=2))
    assert 'return {}["no such key"]' in "".join(caught.value.__notes__)
    assert time.monotonic() - started < 20  # the other worker, asleep for 30 s, was stopped


def test_a_users_mistake_keeps_its_exit_code(work):
    with pytest.raises(CurateError, match=r"item \d: refused") as caught:
        list(run_local(work.refuse, [0, 1], workers=2))
    assert caught.value.exit_code == 6


def test_a_worker_that_is_killed_is_said(work):
    with pytest.raises(CurateError, match=r"ended by itself \(exit code -9"):
        list(run_local(work.die, [0, 1], workers=2))


@pytest.mark.parametrize(("blow", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_workers_end_with_their_parent(work, tmp_path, blow, code):
    folder = tmp_path / "pids"
    folder.mkdir()
    script = f"""
        import signal, sys, work_of_test
        from curate.engine.local import run_local
        # whoever starts the tests in the background has it ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            list(run_local(work_of_test.linger, [{str(folder)!r}] * 2, workers=2))
        except KeyboardInterrupt:
            sys.exit(130)
    """
    # No `__main__` guard, and no file: neither may matter.
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
    try:
        _wait_until(lambda: len(list(folder.iterdir())) == 2)
        parent.send_signal(blow)
        assert parent.wait(timeout=20) == code
        _wait_until(lambda: not any(_is_alive(int(path.name)) for path in folder.iterdir()))
    finally:
        parent.kill()
        parent.wait()


def notes(folder, number):
    """Return how many others were at work in each try of an item."""
    return [int(path.name.split("-")[3]) for path in sorted(folder.glob(f"try-{number}-*"))]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_item_is_tried_again_alone_then_rejected(work, tmp_path, workers):
    whats = ["", "refuse", "", "crash", "", ""]
    items = [(str(tmp_path), number, what) for number, what in enumerate(whats)]
    failures = []
    found = run_local(work.note, items, workers=workers, reject=failures.append)
    assert list(found) == [0, 2, 4, 5]
    assert [(each.item[1], each.reason) for each in failures] == [
        (1, "item 1: refused"),
        (3, "KeyError: 'no such key'"),
    ]
    for number in (1, 3):
        assert len(notes(tmp_path, number)) == 2 and notes(tmp_path, number)[1] == 0
    assert all(len(notes(tmp_path, number)) == 1 for number in (0, 2, 4, 5))


def test_the_run_goes_on_when_a_worker_dies(work, tmp_path):
    whats = ["", "die once", "", "die", ""]
    items = [(str(tmp_path), number, what) for number, what in enumerate(whats)]
    failures = []
    assert list(run_local(work.note, items, workers=2, reject=failures.append)) == [0, 1, 2, 4]
    assert [each.item[1] for each in failures] == [3]
    assert "exit code -9" in failures[0].reason
    assert notes(tmp_path, 3)[-1] == notes(tmp_path, 1)[-1] == 0
    # where no item may be lost, a death is forgiven once
    (tmp_path / "more").mkdir()
    items = [(str(tmp_path / "more"), number, "die once") for number in range(2)]
    assert list(run_local(work.note, items, workers=2)) == [0, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_rejects_nothing_and_ends_the_run(work, tmp_path, workers):
    items = [(str(tmp_path), number, "full disk" if number == 1 else "") for number in range(9)]
    failures = []
    with pytest.raises(CannotWriteError):
        list(run_local(work.note, items, workers=workers, reject=failures.append))
    assert failures == []


def _has_begun(line):
    """Say whether more than the length of an answer stands in the pipe."""
    return int.from_bytes(fcntl.ioctl(line, termios.FIONREAD, bytes(4)), sys.byteorder) > 100


def test_a_worker_that_dies_in_the_middle_of_an_answer_is_said(work):
    worker = start_worker({})
    try:
        send(worker, work.large, 7, None)
        until = time.monotonic() + 60
        while time.monotonic() < until and not _has_begun(worker.line.fileno()):
            time.sleep(0.01)
        worker.process.kill()
        worker.process.join()
        found = receive(worker)
    finally:
        stop_worker(worker)
    assert [(number, outcome.died) for number, outcome in found.items()] == [(7, True)]


def test_an_answer_that_cannot_be_packed_is_an_error_and_not_waited_for(work):
    with pytest.raises((AttributeError, RuntimeError), match="pickle"):
        list(run_local(work.not_to_be_packed, [1, 2], workers=2))


def test_results_wait_for_an_earlier_one_in_bounded_number(work):
    made = []

    def items():
        for number in range(40):
            made.append(number)
            yield 0 if number == 0 else 1

    running = run_local(work.double_late, items(), workers=2, most=3)
    assert next(running) == 0
    assert made == [0, 1, 2]
    assert list(running) == [2] * 39


def test_items_are_taken_only_when_a_worker_has_room(work):
    made = []

    def items():
        for number in range(8):
            made.append(number)
            yield 0.2 if number == 0 else 0

    running = run_local(work.double, items(), workers=2)
    next(running)
    assert len(made) < 8
    assert len(list(running)) == 7


def test_processes_are_started_once_and_wait_for_the_next_step(work, tmp_path):
    with working_on(RunSettings(), folder=tmp_path):
        first = list(run_items(work.loads, range(6), workers=2))
        second = list(run_items(work.loads, range(6), workers=2))
    assert len({pid for pid, _ in first + second}) == 2
    assert max(count for _, count in second) > 3  # each process still had its module
    assert not any(_is_alive(pid) for pid, _ in first)


def test_what_has_to_be_done_here_is_done_here_whatever_the_engine(work, tmp_path):
    with working_on(RunSettings(engine="batch"), folder=tmp_path / "batch"):
        with working_here():
            assert list(run_items(work.double, range(3))) == [0, 2, 4]
        assert engine_here() == "batch"
    assert not (tmp_path / "batch").exists()


def test_one_process_a_gpu(work, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, GPU-7")
    assert visible_gpus() == ["0", "GPU-7"]
    with working_on(RunSettings(), folder=tmp_path):
        found = list(run_items(work.gpu, range(4), workers=2, device="cuda", slots=2))
        (alone,) = run_items(work.gpu, range(1), device="cuda", apart=True)
    assert sorted(found) == ["0", "0", "GPU-7", "GPU-7"]
    assert alone == "0"


# --- what will be needed next ---


def test_what_is_needed_next_is_made_ahead_but_not_without_bound():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    running = ahead(items(), most=3)
    assert next(running) == 0
    _wait_until(lambda: len(made) == 5)  # one taken, three that wait, one in the hand
    time.sleep(0.3)
    assert len(made) == 5
    assert [next(running) for _ in range(3)] == [1, 2, 3]
    running.close()
    n_made = len(made)
    time.sleep(0.3)
    assert len(made) == n_made < 100


def test_an_error_of_what_is_made_ahead_comes_in_its_turn():
    def items():
        yield 1
        raise CurateError("no more")

    running = ahead(items(), most=8)
    assert next(running) == 1
    with pytest.raises(CurateError, match="no more"):
        next(running)
    assert list(ahead(iter(()), most=2)) == []


# --- items as text, and a batch system ---


def test_an_item_survives_as_text():
    item = EmbedItem(
        3, "a b", Path("x/y"), Path("z"), "d", EmbedSettings(also=("norms",)), "r" * 40, "cpu"
    )
    assert from_text(to_text(item)) == item
    counted = partial(count_tokens, name="builtin", info=None)
    again = from_text(to_text((counted, [1, 2.5, None], {"a": (True,)})))
    assert again[0].func is count_tokens and again[0].keywords == counted.keywords
    assert again[1:] == ([1, 2.5, None], {"a": (True,)})


@pytest.mark.parametrize(
    "line",
    [
        '{"record": "subprocess:Popen", "with": {"args": "id"}}',
        '{"partial": "os:system", "with": {}}',
        '{"record": "curate.config:read_settings", "with": {}}',
        '{"record": "curate.records:Shard", "with": {"nonsense": 1}}',
        "{",
    ],
)
def test_a_list_names_only_records_and_functions_of_this_package(line):
    with pytest.raises(CurateError):
        from_text(line)


def test_what_no_list_can_hold_is_a_bug():
    with pytest.raises(ValueError, match="ndarray"):
        to_text((np.zeros(3),))


def test_the_tasks_of_an_array_share_out_what_is_missing(work, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "PACKAGE", "work_of_test")
    (tmp_path / "marks").mkdir()
    whats = ["", "refuse", "", "", "", ""]
    items = [(str(tmp_path / "marks"), number, what) for number, what in enumerate(whats)]
    settings = RunSettings(engine="batch", workers=2)

    def run(failures):
        return list(
            run_batch(work.note, items, settings=settings, folder=tmp_path, reject=failures.append)
        )

    with pytest.raises(CurateError, match=r"6 work items wait in .*items.jsonl: run sbatch"):
        run([])
    script = (tmp_path / "array.sbatch").read_text()
    assert "#SBATCH --array=0-1" in script and "--tasks 2" in script
    assert work_through(tmp_path / "items.jsonl", task=1, tasks=2) == (3, 1)
    assert work_through(tmp_path / "items.jsonl", task=1, tasks=2) == (0, 0)  # done already
    with pytest.raises(CurateError, match="3 work items wait"):
        run([])  # only those of task 0 are missing now
    listed = (tmp_path / "items.jsonl").read_text().splitlines()[1:]
    assert [from_text(line)[1] for line in listed] == [0, 2, 4]
    assert work_through(tmp_path / "items.jsonl", task=0, tasks=1) == (3, 0)
    failures = []
    assert run(failures) == [0, 2, 3, 4, 5]
    assert [each.reason for each in failures] == ["item 1: refused"]
    with pytest.raises(CurateError, match="--task 2: must lie from 0 to 1"):
        work_through(tmp_path / "items.jsonl", task=2, tasks=2)
    with pytest.raises(CurateError, match="no list of work items"):
        work_through(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85", "\x0c", "\r"])
def test_no_sign_in_the_name_of_a_file_ends_a_line_of_the_list(tmp_path, sign):
    path = tmp_path / f"a{sign}b.txt"
    path.write_text("one")
    lists = RunSettings(engine="batch")
    with pytest.raises(CurateError, match="1 work items wait"):
        list(run_batch(digest_file, [path], settings=lists, folder=tmp_path / "batch"))
    assert work_through(tmp_path / "batch" / "items.jsonl") == (1, 0)
    found = list(run_batch(digest_file, [path], settings=lists, folder=tmp_path / "batch"))
    assert found == [digest_file(path)]


def test_a_task_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "7")
    assert task_of_array() == 7
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "x")
    with pytest.raises(CurateError, match="SLURM_ARRAY_TASK_ID=x: not the number of a task"):
        task_of_array()


def test_a_submit_command_with_half_a_quotation_is_told(tmp_path):
    half = RunSettings(engine="batch", submit='sbatch "--wait')
    with pytest.raises(CurateError, match=r"\[run\] submit = .*: No closing quotation"):
        list(run_batch(digest_file, [tmp_path], settings=half, folder=tmp_path / "batch"))


def test_a_result_of_an_array_that_was_changed_is_made_again(work, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "PACKAGE", "work_of_test")
    settings = RunSettings(engine="batch")

    def run():
        return list(run_batch(work.double, [1, 2], settings=settings, folder=tmp_path))

    with pytest.raises(CurateError, match="2 work items wait"):
        run()
    assert work_through(tmp_path / "items.jsonl") == (2, 0)
    for path in (tmp_path / "results").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"result": "4"', b'"result": "5"'))
    with pytest.raises(CurateError, match="1 work items wait"):
        run()
    assert work_through(tmp_path / "items.jsonl") == (1, 0)
    next((tmp_path / "results").iterdir()).write_bytes(b"{")  # cut by a power loss
    with pytest.raises(CurateError, match="1 work items wait"):
        run()
    assert work_through(tmp_path / "items.jsonl") == (1, 0)
    assert run() == [2, 4]


@pytest.mark.parametrize("name", ["a b", "it's", "a\ntouch canary"])
def test_no_name_of_a_folder_is_a_command_of_the_script(work, tmp_path, monkeypatch, name):
    monkeypatch.setattr(listing, "PACKAGE", "work_of_test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    said = "a line break" if "\n" in name else "1 work items wait"
    with pytest.raises(CurateError, match=said):
        list(
            run_batch(
                work.double, [1], settings=RunSettings(engine="batch"), folder=tmp_path / name
            )
        )
    script = tmp_path / name / "array.sbatch"
    if "\n" in name:
        assert not script.exists()
    else:
        (output,) = (line for line in script.read_text().splitlines() if "--output" in line)
        assert shlex.split(output.removeprefix("#SBATCH "))[0].startswith(f"--output={tmp_path}")
        assert len(shlex.split(output.removeprefix("#SBATCH "))) == 1


def test_what_an_item_says_of_its_failure_holds_no_secret(work, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "PACKAGE", "work_of_test")
    monkeypatch.setenv("MY_TOKEN", "canary-token")
    failures = []
    items = [(str(tmp_path), 0, "tell"), (str(tmp_path), 1, "")]
    assert list(run_local(work.note, items, reject=failures.append)) == [1]
    assert "canary" not in failures[0].reason and "refused: https://***@host" in failures[0].reason
    with pytest.raises(CurateError, match="2 work items wait"):
        list(run_batch(work.note, items, settings=RunSettings(engine="batch"), folder=tmp_path))
    assert work_through(tmp_path / "items.jsonl") == (2, 1)
    published = [path.read_text() for path in (tmp_path / "results").iterdir()]
    assert len(published) == 2 and not [text for text in published if "canary" in text]


# --- Ray, on this machine ---


class RayThatIsLate:
    """Ray on a busy machine: its node comes too late so many times."""

    def __init__(self, times, says="The current node timed out during startup. This could"):
        self.times, self.says, self.calls = times, says, []

    def is_initialized(self):
        return False

    def init(self, **_):
        self.calls.append("init")
        if self.calls.count("init") <= self.times:
            raise Exception(self.says)

    def shutdown(self):
        self.calls.append("shutdown")


def test_a_ray_that_starts_too_late_is_started_again(monkeypatch):
    late = RayThatIsLate(2)
    monkeypatch.setitem(sys.modules, "ray", late)
    with connected(RunSettings(engine="ray")) as ray:
        assert ray is late
    assert late.calls == ["init", "shutdown", "init", "shutdown", "init", "shutdown"]
    monkeypatch.setitem(sys.modules, "ray", RayThatIsLate(3))
    said = pytest.raises(CurateError, match="did not start on this machine in 3 tries")
    with said, connected(RunSettings(engine="ray")):
        pass
    monkeypatch.setitem(sys.modules, "ray", RayThatIsLate(1, "no room in /dev/shm"))
    with pytest.raises(Exception, match="no room"), connected(RunSettings(engine="ray")):
        pass


def test_a_node_that_does_not_see_the_folder_ends_the_run_in_one_line(tmp_path):
    with marked(tmp_path / "batch") as mark:
        assert on_ray._work(len, "four", "", str(mark)).result == 4
    assert not mark.parent.exists()
    outcome = on_ray._work(len, "four", "", str(mark))
    with pytest.raises(CurateError, match=rf"does not see {mark.parent}; share that") as said:
        judge(None, outcome, alone=False, reject=[].append)
    assert "\n" not in str(said.value)


def test_the_mark_of_a_driver_that_was_killed_goes_with_the_next(tmp_path):
    here = this_owner()
    dead = dataclasses.replace(here, started=here.started + 1).mark
    for name in (f"ray-{dead}-0a", f"ray-{here.mark}-0b", "ray-00000000-1-1-0c", "ray-mine"):
        (tmp_path / name).touch()
    with marked(tmp_path) as mark:
        assert mark.name.startswith(f"ray-{here.mark}-")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"ray-{here.mark}-0b", "ray-00000000-1-1-0c", "ray-mine"}


@pytest.mark.slow
def test_ray_gives_results_and_reasons(work, patient_ray, tmp_path):
    pytest.importorskip("ray")
    items = [(str(tmp_path), 0, "refuse"), (str(tmp_path), 1, "")]
    failures = []
    with working_on(RunSettings(engine="ray", workers=1), folder=tmp_path):
        assert list(run_items(work.note, items, reject=failures.append)) == [1]
    assert [each.reason for each in failures] == ["item 0: refused"]


@pytest.mark.slow
def test_ray_keeps_order_reasons_and_the_run(work, patient_ray, tmp_path):
    pytest.importorskip("ray")
    whats = ["", "refuse", "die once", "", "die"]
    items = [(str(tmp_path), number, what) for number, what in enumerate(whats)]
    failures, told = [], []
    with working_on(RunSettings(engine="ray", workers=1), folder=tmp_path):
        found = list(
            run_items(
                work.note, iter(items), total=5, reject=failures.append,
                notify=lambda *step: told.append(step), what="x",
            )
        )  # fmt: skip
    assert found == [0, 2, 3]
    assert [each.item[1] for each in failures] == [1, 4]
    assert failures[0].reason == "item 1: refused" and "WorkerCrashed" in failures[1].reason
    assert told == [("x", done, 5) for done in range(1, 6)]


def test_cores_are_counted():
    assert 1 <= count_cores() <= (os.cpu_count() or 1)


def _is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)

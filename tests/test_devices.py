"""Several devices at once, each a sleep: nothing but their number may decide the rate."""

import sys

import pytest

from curate.engine.local import run_local
from curate.engine.on_ray import connected, count_room, run_ray
from curate.settings import RunSettings

ON_DEVICE = """
import os, threading, time

device = threading.Lock()  # a process has two items in hand, its device one

def compute(seconds):
    with device:
        began = time.monotonic()
        time.sleep(seconds)
        return os.environ.get("CUDA_VISIBLE_DEVICES", ""), began, time.monotonic()
"""


@pytest.fixture
def compute(tmp_path, monkeypatch):
    (tmp_path / "on_device.py").write_text(ON_DEVICE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("on_device", None)
    import on_device

    return on_device.compute


def rate(spans, devices):
    """Return how many devices' worth of work was done while all of them had work."""
    begun = [min(a for name, a, _ in spans if name == each) for each in devices]
    ended = [max(b for name, _, b in spans if name == each) for each in devices]
    first, last = max(begun), min(ended)
    assert last > first
    return sum(max(0.0, min(b, last) - max(a, first)) for _, a, b in spans) / (last - first)


@pytest.mark.parametrize("count", [1, 4])
def test_devices_of_one_machine_scale(compute, count):
    own = [{"CUDA_VISIBLE_DEVICES": str(number)} for number in range(count)]
    items = [0.25] * (8 * count)
    spans = list(run_local(compute, items, workers=count, slots=2, environments=own))
    devices = {name for name, _, _ in spans}
    assert devices == {str(number) for number in range(count)}
    assert rate(spans, devices) >= 0.9 * count


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("gpus", "at_once"), [(1.0, 2), (0.5, 4)])
def test_gpus_of_a_ray_cluster_scale_by_fraction(compute, patient_ray, gpus, at_once):
    ray = pytest.importorskip("ray")
    ray.init(
        address="local", num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    try:
        with connected(RunSettings(engine="ray")) as there:
            assert count_room(there, device="cuda", gpus=gpus) == at_once
            run = run_ray(compute, [2.0] * (6 * at_once), ray=there, gpus=gpus, device="cuda")
            spans = list(run)
    finally:
        ray.shutdown()
    devices = {name for name, _, _ in spans}
    assert devices == {"0", "1"}  # logical ones: Ray hands out what it is told there is
    for name, begin, _ in spans:  # no device holds more items than its fractions
        assert sum(a <= begin < b for other, a, b in spans if other == name) <= at_once // 2
    assert rate(spans, devices) >= 0.9 * at_once

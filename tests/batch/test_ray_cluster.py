"""Which Ray clusters are used: none that lets anybody in unless the user says so, and none over Ray Client."""

from __future__ import annotations

import pytest

from relay_batch import cli
from relay_batch.engines.ray_cluster import GPU, OPEN_FLAG, OWN_RESOURCE, Cluster, check_address, taken_by_a_worker
from relay_batch.errors import BatchError

TOKEN = {"RAY_AUTH_MODE": "token"}


@pytest.mark.parametrize("address", [None, "auto", "127.0.0.1:6379", "localhost:6379", "[::1]:6379", "127.0.1.1:1"])
def test_this_machine_alone(address: str | None) -> None:
    check_address(Cluster(address), {})


@pytest.mark.parametrize("address", ["10.0.0.1:6379", "head.example:6379", "0.0.0.0:6379", "[fe80::1]:6379"])
def test_a_cluster_that_others_reach_needs_a_token(address: str) -> None:
    for environment in ({}, {"RAY_AUTH_MODE": "disabled"}):
        with pytest.raises(BatchError, match=rf"whoever reaches it can run any code.*or say {OPEN_FLAG}\."):
            check_address(Cluster(address), environment)
    check_address(Cluster(address), TOKEN)
    check_address(Cluster(address, may_be_open=True), {})


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://127.0.0.1:10001", "Ray Client .* loses the run with its connection.*ray job submit"),
        ("http://127.0.0.1:8265", "a run needs HOST:PORT"),
        ("127.0.0.1", "write HOST:PORT"),
        ("127.0.0.1:", "write HOST:PORT"),
        ("head:port", "write HOST:PORT"),
    ],
)
def test_addresses_that_are_none(address: str, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        check_address(Cluster(address), TOKEN)


def test_the_command_refuses_an_open_cluster(
    capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    run = ["run", "workflow.json", "--out", str(tmp_path / "out"), "--comfyui", str(tmp_path), "--engine", "ray"]
    assert cli.main([*run, "--address", "10.0.0.1:6379"]) == 2
    assert "whoever reaches it can run any code" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cluster", "resources", "takes"),
    [
        (Cluster(), {"CPU": 2}, {OWN_RESOURCE: 1}),
        (Cluster(), {"CPU": 2, GPU: 1}, {GPU: 1}),
        (Cluster("10.0.0.1:6379"), {GPU: 8}, {GPU: 1}),
        (Cluster("10.0.0.1:6379", "comfyui"), {GPU: 8}, {"comfyui": 1}),
        (Cluster("10.0.0.1:6379", GPU), {}, {GPU: 1}),
    ],
)
def test_what_a_worker_takes(cluster: Cluster, resources: dict[str, float], takes: dict[str, float]) -> None:
    assert taken_by_a_worker(cluster, resources) == takes


def test_a_cluster_without_a_gpu_is_refused() -> None:
    with pytest.raises(BatchError, match=r"No machine of the cluster has a GPU.*--worker-takes GPU, to wait"):
        taken_by_a_worker(Cluster("10.0.0.1:6379"), {"CPU": 64})

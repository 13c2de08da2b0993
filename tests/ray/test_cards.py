"""Each task that runs a network has a card of its own, as Ray's resources say; pieces without one need none.

The cards are words: a node says that it has two, and Ray schedules by that. No GPU took part.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from two_nodes import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
TASKS = 6


def test_a_task_with_a_network_has_one_card_to_itself(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    with monkeypatch.context() as before:  # what cards.py changes is for workers
        before.setattr(torch.cuda, "is_available", torch.cuda.is_available)
        before.setattr(torch.cuda, "device_count", torch.cuda.device_count)
        import cards
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    from flawsmith.cluster.on_ray import on_ray
    from flawsmith.config import load_config
    from flawsmith.run.folder import Run

    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    run = Run.create(tmp_path / "run", load_config(None, {"data.root": str(tmp_path)}))
    folders = [tmp_path / name for name in ("with", "without")]
    for folder in folders:
        folder.mkdir()
    node = cluster.add_node(num_cpus=2, num_gpus=2)
    try:
        with on_ray("ray", run) as spread:
            on_cards, without = (
                [seen for _, seen in spread(cards.look, [(folder, n) for n in range(TASKS)], network=network)]
                for folder, network in zip(folders, (True, False), strict=True)
            )
    finally:
        cluster.remove_node(node)
    assert len(on_cards) == len(without) == TASKS
    assert {seen.cards for seen in on_cards} == {("0",), ("1",)}
    assert len({seen.node for seen in on_cards}) == 1, "a node without cards did a network's task"
    for one, other in combinations(on_cards, 2):
        apart = one.ended <= other.begun or other.ended <= one.begun
        assert one.cards != other.cards or apart, "two tasks had one card at once"
    assert {seen.cards for seen in without} == {()}
    assert {seen.node for seen in without} - {seen.node for seen in on_cards}, (
        "pieces without a network waited for cards"
    )

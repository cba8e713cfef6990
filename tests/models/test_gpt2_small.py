"""examples/gpt2-small.yaml is GPT-2 small, and its plan predicts at least the memory that the network needs."""

from __future__ import annotations

import numpy as np
import pytest

from cluster.models.gpt2_network import Gpt2, as_gpt2
from coordinator.job.spec import load_job
from coordinator.plan.blueprint import make_blueprint
from coordinator.plan.estimate import estimate
from coordinator.plan.link_room import link_room
from tests.jobs import EXAMPLES

BLOCK, PARAMETERS = 256, 123_849_984  # 124,439,808 with GPT-2's own 1,024 positions


def test_it_is_gpt2_small() -> None:
    network = load_job(EXAMPLES / "gpt2-small.yaml").resolved(BLOCK, 256).model_spec().network
    sizes, pairs = as_gpt2(network)
    assert sizes == Gpt2(
        vocabulary=50_257,
        positions=BLOCK,
        features=768,
        heads=12,
        blocks=12,
        ffn=3072,
        embedding_dropout=0.1,
        residual_dropout=0.1,
    )
    assert sum(int(np.prod(pair.shape)) for pair in pairs) == PARAMETERS


@pytest.mark.parametrize(("stages", "most"), [(1, 2.5), (2, 2.2), (4, 1.8)])
def test_the_plan_counts_each_parameter_once(stages: int, most: float) -> None:
    """Each parameter counts once, with its gradient and two vectors of the optimizer. The last stage also has a
    copy of the tied weight and its gradient. `most` is the memory of the largest worker in GiB."""
    spec = load_job(EXAMPLES / "gpt2-small.yaml").resolved(BLOCK, 256).replace(stages=stages, partition="auto")
    blueprint = make_blueprint(spec, 1000)
    plan = estimate(blueprint, data_bytes=0, validation_rows=10)
    tied = 4 * 50_257 * 768
    own = 4 * PARAMETERS
    held = [(s.memory.weights, s.memory.gradients, s.memory.optimizer) for s in plan.stages]
    weights, gradients, optimizer = (sum(part) for part in zip(*held, strict=True))
    copies = 0 if stages == 1 else tied
    assert (weights - copies, gradients - tied, optimizer) == pytest.approx((own, own, 2 * own), rel=1e-4)
    room = link_room(blueprint)
    links = [sum(n for link, n in room.items() if worker in link) for worker in range(stages)]
    under_way = [worker.message_bytes - n for worker, n in zip(plan.workers, links, strict=True)]
    assert [n == tied for n in under_way] == [stages > 1 and w in (0, stages - 1) for w in range(stages)]
    assert max(worker.total for worker in plan.workers) < most * 2**30

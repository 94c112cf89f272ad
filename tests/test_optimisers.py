import copy

import pytest
import torch
from torch import nn

from wsiseg.optimisers import Lookahead, Ranger


class Fast(Lookahead, torch.optim.SGD):
    EVERY = 3


def weight(*values):
    return nn.Parameter(torch.tensor(values))


def test_slow_weights_go_half_way_every_few_steps():
    """Algorithm 1 by hand: the gradient is 1, the rate 0.1, k 3, alpha 0.5."""
    w = weight(1.0)
    optimiser = Fast([w], lr=0.1)
    seen = []
    for _ in range(7):
        w.grad = torch.ones(1)
        optimiser.step()
        seen.append(w.item())
    # 1 - 3 * 0.1 = 0.7, half way to it is 0.85; from there to 0.55, half way is 0.7.
    assert seen == pytest.approx([0.9, 0.8, 0.85, 0.75, 0.65, 0.7, 0.6])


def descend(optimiser, w, steps):
    for _ in range(steps):
        optimiser.zero_grad()
        (w.square() * torch.tensor([1.0, 10.0])).sum().backward()
        optimiser.step()


def test_ranger_is_radam_with_lookahead():
    w, plain = weight(1.0, -2.0), weight(1.0, -2.0)
    ranger = Ranger([w], lr=0.05)
    radam = torch.optim.RAdam([plain], lr=0.05)
    slow = plain.detach().clone()
    for step in range(1, 20):
        descend(ranger, w, 1)
        descend(radam, plain, 1)
        if step % 6 == 0:
            slow += 0.5 * (plain.detach() - slow)
            plain.data.copy_(slow)
        torch.testing.assert_close(w, plain)


def test_a_checkpoint_holds_the_slow_weights():
    w = weight(1.0, -2.0)
    optimiser = Ranger([w], lr=0.05)
    descend(optimiser, w, 8)
    again = nn.Parameter(w.detach().clone())
    resumed = Ranger([again], lr=0.05)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    descend(optimiser, w, 8)
    descend(resumed, again, 8)
    assert torch.equal(w, again)


def test_weights_without_a_gradient_stay():
    w, idle = weight(1.0, 1.0), weight(3.0)
    optimiser = Ranger([w, idle], lr=0.1)
    descend(optimiser, w, 7)
    assert idle.item() == 3.0
    idle.grad = torch.ones(1)
    descend(optimiser, w, 0)
    optimiser.step()
    assert idle.item() < 3.0

"""Ranger: rectified Adam whose weights are drawn back to slow ones every few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer, RAdam


class Lookahead(Optimizer):
    """What it stands before takes fast steps; every `EVERY` of them slow weights go `TOWARDS` the fast ones.

    The fast weights then go on from the slow ones. A class lists it before an optimiser of torch's. The slow
    weights lie in the optimiser's state, so that a checkpoint holds them.

    Source: Zhang et al. (2019), algorithm 1.
    """

    EVERY = 6
    TOWARDS = 0.5
    """Those of the published Ranger; Zhang et al. write k and alpha."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]  # torch overloads it
        """One fast step, and every `EVERY` of them one slow step."""
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        # An optimiser of torch's takes a state that is not empty for one of its own, so this is put in later.
        first = {p: p.clone() for p in moving if "slow" not in self.state[p]}
        result = super().step(closure)
        for p in moving:
            self._look(p, first.get(p))
        return result

    def _look(self, weights: Tensor, first: Tensor | None) -> None:
        state = self.state[weights]
        if first is not None:
            state["slow"], state["looked"] = first, torch.zeros(())
        state["looked"] += 1
        if state["looked"] % self.EVERY == 0:
            state["slow"].lerp_(weights, self.TOWARDS)
            weights.copy_(state["slow"])


class Ranger(Lookahead, RAdam):
    """RAdam (Liu et al. 2019) with Lookahead: the optimiser of Wright (2019)."""

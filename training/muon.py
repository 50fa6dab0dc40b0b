"""Muon for matrices and stacks of matrices, in the precision the machine is fast in.

The method is `torch.optim.Muon`'s, with its update to the letter; a test compares the
two. Ours is here for two reasons: the experts of a layer are one tensor of shape
(experts, out, in), of which torch's takes none; and torch's computes in bf16, which a
CPU without bf16 instructions does a hundred times slower than fp32.
"""

import torch
from torch.optim.optimizer import Optimizer

from qwen_course.loading import cpu_has_bf16

# Keller Jordan, https://kellerjordan.github.io/posts/muon: a quintic that pushes every
# singular value towards 1, quickly rather than exactly.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


def fast_precision(device: torch.device) -> torch.dtype:
    """Return bf16 where the hardware computes in it, fp32 where it is emulated."""
    if device.type == "cpu" and not cpu_has_bf16():
        return torch.float32
    return torch.bfloat16


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrices with singular values of about 1 (0.7 to 1.2).

    `matrices` has the shape (..., rows, columns); each is treated by itself.
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.to(fast_precision(matrices.device))
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum, orthogonalized: every direction of a matrix learns at the same rate."""

    def __init__(self, params, lr=0.02, weight_decay=0.01, momentum=0.95) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Update every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer, momentum = state["momentum_buffer"], group["momentum"]
        buffer.lerp_(weight.grad, 1 - momentum)
        direction = weight.grad.lerp(buffer, momentum)  # Nesterov's look ahead
        rows, columns = weight.shape[-2:]
        step = group["lr"] * max(1.0, rows / columns) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonalize(direction).to(weight.dtype), alpha=-step)

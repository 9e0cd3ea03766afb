"""Entropic transport plans by Sinkhorn-Knopp, for a whole batch."""
import logging
from typing import Callable, Optional

import torch
from mmengine.logging import print_log
from torch import Tensor

from .l2_normalize import at_least_float32

# The scaling form multiplies numbers up to exp(2 * exponent). float32 ends at
# exp(88), so exponents up to this value are safe.
_MAX_SCALING_EXPONENT = 30.0
# Plans with more rows or columns do not fit into the registers of a program.
_MAX_KERNEL_SIDE = 64

_kernel_failed = False


def sinkhorn(cost: Tensor, supply: Tensor, demand: Tensor,
             epsilon: float = 0.1, num_iters: int = 50,
             largest_cost: Optional[float] = None) -> Tensor:
    """Compute entropic transport plans by Sinkhorn-Knopp, for a whole batch.

    With G = exp(-cost / epsilon) and u = 1, each iteration sets
    v = demand / (G^T u), then u = supply / (G v), in the order of OTA
    (https://arxiv.org/abs/2103.14259) and POT. The plan is diag(u) G diag(v).
    Because u is updated last, the rows of the plan sum to the supply exactly.
    The columns sum to the demand once the iteration has converged.

    The iteration runs on logarithms, in float64, if ``largest_cost`` is
    unknown or ``largest_cost / epsilon`` is too large for float32. Otherwise,
    float32 inputs on a GPU, with M and N of at most 64 and without gradient,
    are solved by one Triton kernel. All other inputs are solved by a loop of
    PyTorch operations.

    Args:
        cost (Tensor): Cost of moving one unit from m to n, (B, M, N).
        supply (Tensor): Mass at each m, (B, M), non-negative, with a positive
            sum.
        demand (Tensor): Mass at each n, (B, N), with the same sum.
        epsilon (float): Weight of the entropy. Defaults to 0.1.
        num_iters (int): Number of iterations. Defaults to 50.
        largest_cost (float, optional): Upper bound of non-negative costs,
            2 for 1 - cosine. The bound selects the faster form without
            reading the costs. Defaults to None, unknown.

    Returns:
        Tensor: Plans of shape (B, M, N), float32 or float64.
    """
    problem = (at_least_float32(cost), at_least_float32(supply),
               at_least_float32(demand))
    if largest_cost is None or largest_cost / epsilon > _MAX_SCALING_EXPONENT:
        return _solve_log(*problem, epsilon, num_iters)
    solve = _solve_fused if _fits_kernel(*problem) else _solve_scaling
    return solve(*problem, epsilon, num_iters)


def _fits_kernel(*problem: Tensor) -> bool:
    """Return True if the size and type of the problem fit the Triton kernel.

    torch.compile traces this function, so the function does not import
    Triton.
    """
    needs_grad = torch.is_grad_enabled() and any(
        x.requires_grad for x in problem)
    return (not needs_grad and max(problem[0].shape[1:]) <= _MAX_KERNEL_SIDE
            and all(x.is_cuda and x.dtype == torch.float32 for x in problem))


def _solve_scaling(cost: Tensor, supply: Tensor, demand: Tensor,
                   epsilon: float, num_iters: int) -> Tensor:
    kernel = (cost / -epsilon).exp()
    kernel_t = kernel.transpose(1, 2).contiguous()
    supply, demand = supply.unsqueeze(2), demand.unsqueeze(2)
    u = torch.ones_like(supply)
    for _ in range(num_iters):
        v = demand / torch.bmm(kernel_t, u)
        u = supply / torch.bmm(kernel, v)
    return u * kernel * v.transpose(1, 2)


def _solve_log(cost: Tensor, supply: Tensor, demand: Tensor, epsilon: float,
               num_iters: int) -> Tensor:
    # float64: at an exponent of 1000, float32 loses three digits.
    exponent = (cost / -epsilon).double()
    log_supply, log_demand = supply.double().log(), demand.double().log()
    log_u = torch.zeros_like(log_supply)
    for _ in range(num_iters):
        log_v = log_demand - (exponent + log_u.unsqueeze(2)).logsumexp(dim=1)
        log_u = log_supply - (exponent + log_v.unsqueeze(1)).logsumexp(dim=2)
    log_plan = exponent + log_u.unsqueeze(2) + log_v.unsqueeze(1)
    return log_plan.exp().to(supply.dtype)


def _solve_by_kernel(cost: Tensor, supply: Tensor, demand: Tensor,
                     epsilon: float, num_iters: int) -> Tensor:
    """Solve by the Triton kernel, or by the loop if the kernel fails."""
    global _kernel_failed
    if cost.numel() and not _kernel_failed:
        try:
            from .sinkhorn_triton import solve
            return solve(cost, supply, demand, epsilon, num_iters)
        except Exception as e:  # Triton raises errors of many types
            _kernel_failed = True
            print_log(
                f'sinkhorn: the Triton kernel failed ({type(e).__name__}: '
                f'{e}). A loop is used, which gives the same plans but is '
                'slower: 4 GPU kernels per iteration. To use the Triton '
                'kernel, install the package triton, a C compiler (gcc) and '
                'the headers of Python (python3-dev)',
                logger='current', level=logging.WARNING)
    return _solve_scaling(cost, supply, demand, epsilon, num_iters)


def _operator(function: Callable) -> Callable:
    """Make the function one node of a graph of torch.compile.

    PyTorch before 2.4 has no such operators and uses the function.
    """
    if not hasattr(torch.library, 'custom_op'):
        return function
    operator = torch.library.custom_op(
        'univip_mm::sinkhorn', function, mutates_args=())
    operator.register_fake(
        lambda cost, *_: torch.empty_like(
            cost, memory_format=torch.contiguous_format))
    return operator


_solve_fused = _operator(_solve_by_kernel)

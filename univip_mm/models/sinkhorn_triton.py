"""Sinkhorn-Knopp as one Triton kernel: one program per image.

Import this module only when the kernel is needed: Triton may be missing, and
its import is slow.
"""
import torch
import triton
from torch import Tensor
from triton import language as tl


@triton.jit
def _scaling_kernel(cost, supply, demand, plan, epsilon,
                    num_iters: tl.constexpr,
                    M: tl.constexpr, N: tl.constexpr, ROWS: tl.constexpr,
                    COLUMNS: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    in_rows, in_columns = row < M, column < N
    cell = image * M * N + row[:, None] * N + column[None, :]
    in_cells = in_rows[:, None] & in_columns[None, :]
    # Padded rows and columns have the cost 0 and no mass, so their u and v
    # are 0 / positive = 0, and the loop needs no masks. Only the first u needs
    # a mask: 1 in real rows, 0 in padded rows.
    gibbs = tl.exp(-tl.load(cost + cell, in_cells, 0.0) / epsilon)
    b = tl.load(supply + image * M + row, in_rows, 0.0)
    a = tl.load(demand + image * N + column, in_columns, 0.0)
    u, v = tl.where(in_rows, 1.0, 0.0), tl.where(in_columns, 1.0, 0.0)
    for _ in range(num_iters):
        v = a / tl.sum(gibbs * u[:, None], axis=0)
        u = b / tl.sum(gibbs * v[None, :], axis=1)
    tl.store(plan + cell, u[:, None] * gibbs * v[None, :], in_cells)


def solve(cost: Tensor, supply: Tensor, demand: Tensor, epsilon: float,
          num_iters: int) -> Tensor:
    """Compute transport plans (B, M, N) in float32, in the scaling form.

    The arguments are those of :func:`~.sinkhorn_solver.sinkhorn`, in float32
    and on one device. A padded plan must fit into the registers of a program,
    so M and N are at most 64.
    """
    cost = cost.contiguous()
    batch_size, m, n = cost.shape
    plan = torch.empty_like(cost)
    rows, columns = triton.next_power_of_2(m), triton.next_power_of_2(n)
    with torch.cuda.device_of(cost):  # no effect on the CPU (interpreter)
        _scaling_kernel[(batch_size, )](
            cost, supply.contiguous(), demand.contiguous(), plan, epsilon,
            num_iters, m, n, rows, columns,
            num_warps=1 if rows * columns <= 1024 else 4)
    return plan

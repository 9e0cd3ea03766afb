"""Bare arithmetic of a UniVIP step, which stands for the limit of its speed.

The same network passes, forward and backward, on augmented views that are on
the device already. No augmentation, losses, target update and optimizer.
"""
from typing import Optional

import torch
from torch import Tensor

from univip_mm.registry import MODELS

from .timing import device


class BareStep:
    """The passes of both branches and the backward pass of the online one.

    Args:
        model (dict): Config of UniVIP.
        batch (dict): A collated batch.
        precision (str, optional): ``bf16`` for autocast. Defaults to None.
        graph (str, optional): ``cuda_graph`` captures the step in one graph,
            ``inductor`` compiles the passes, and captures them on a GPU.
            Defaults to None, without compilation.
    """

    def __init__(self, model: dict, batch: dict,
                 precision: Optional[str] = None,
                 graph: Optional[str] = None) -> None:
        self.model = MODELS.build(model).to(device()).train()
        self.precision = precision
        with torch.no_grad():
            views = self.model.data_preprocessor(batch, True)['inputs']
        self.scenes, self.instances = views[:2], views[2:]
        self.passes = self._passes
        if graph == 'inductor':
            mode = 'reduce-overhead' if device() == 'cuda' else None
            self.passes = torch.compile(
                self._passes, fullgraph=True, dynamic=False, mode=mode)
        self.gradients: Optional[list[Tensor]] = None
        self.graph = self._capture() if graph == 'cuda_graph' else None

    def __call__(self) -> None:
        """Run the passes once."""
        if self.graph:
            self.graph.replay()
        else:
            self._run()

    def _passes(self) -> tuple[Tensor, ...]:
        # Results of the target are returned, or the compiler drops its pass.
        online = self.model.forward_online(self.scenes, self.instances)[:3]
        target = self.model.forward_target(self.scenes, self.instances)
        return (*online, *target)

    def _run(self) -> None:
        self.model.zero_grad(set_to_none=True)
        with torch.autocast(device(), torch.bfloat16,
                            enabled=self.precision == 'bf16'):
            online = self.passes()[:3]
        if self.gradients is None:
            self.gradients = [torch.rand_like(x) for x in online]
        torch.autograd.backward(online, self.gradients)

    def _capture(self):
        # The warm-up on another stream is a condition of PyTorch's capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self.model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        return graph

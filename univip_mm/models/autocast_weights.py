"""Weights in the type of autocast, converted once for several passes."""
import torch
from torch import Tensor, nn


@torch.no_grad()
def autocast_weights(module: nn.Module, device: str) -> dict[str, Tensor]:
    """Return the weights that autocast would convert, by parameter name.

    Autocast keeps a converted weight only if the weight needs a gradient. So
    autocast would convert the weights of a frozen network in every pass. Use
    the result in ``torch.func.functional_call``.

    Args:
        module (nn.Module): Network of layers in float32.
        device (str): Type of the device, 'cuda' or 'cpu'.

    Returns:
        dict[str, Tensor]: Weights and biases of the convolutional and linear
        layers whose forward pass is PyTorch's: others may compute with the
        weight in float32. Empty without autocast, and while a compiler traces:
        the compiler itself removes equal conversions.
    """
    if not hasattr(torch, 'get_autocast_dtype'):  # before PyTorch 2.4
        return {}
    if torch.compiler.is_compiling() or not torch.is_autocast_enabled(device):
        return {}
    dtype = torch.get_autocast_dtype(device)
    return {
        f'{path}.{name}' if path else name: x.to(dtype)
        for path, layer in module.named_modules()
        if type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward)
        for name, x in layer.named_parameters(recurse=False)
        if name in ('weight', 'bias') and x.dtype == torch.float32}

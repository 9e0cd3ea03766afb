"""Export of a backbone to ONNX."""
import json
import warnings
from collections.abc import Sequence

import torch

from .network import FeatureNetwork, build_network
from .packages import import_package
from .source import BackboneSource

INPUT = 'images'
# The second output is missing if the network returns features only.
OUTPUTS = ('features', 'feature_map')
_SIZE = 224


def onnx_model(source: BackboneSource) -> tuple[bytes, tuple[str, ...]]:
    """Return the network of a checkpoint as an ONNX file.

    The input ``images`` is (N, 3, H, W) float32, normalized. The outputs are
    ``features`` (N, C) and, for a network with a feature map or tokens,
    ``feature_map``, the last output of the backbone. N is free. H and W are
    free too, except for networks with position embeddings, which keep the
    size of the training. The metadata of the model has the origin, and
    ``mean``, ``std`` and ``color_order`` of the normalization (pixels of 0 to
    255).

    Returns:
        tuple[bytes, tuple[str, ...]]: The file, and the names of the outputs.

    Raises:
        ValueError: A package is missing, or the network is unknown or cannot
            be exported.
    """
    import_package('onnx', 'this format')
    import_package('onnxscript', 'this format')
    network = build_network(source)
    is_fixed = any('pos' in name.rpartition('.')[2]
                   for name in source.weights)
    images = torch.zeros(2, 3, *(_image_size(network) if is_fixed else
                                 (_SIZE, _SIZE)))
    with torch.no_grad():
        last = network(images)[1]
    outputs = OUTPUTS if last.ndim > 2 else OUTPUTS[:1]
    program = _export(network, images, outputs, () if is_fixed else (2, 3))
    normalization = source.normalization
    program.model.metadata_props.update(
        mean=json.dumps(normalization.mean), std=json.dumps(normalization.std),
        color_order=normalization.order, origin=json.dumps(source.origin))
    return program.model_proto.SerializeToString(), outputs


def _image_size(network: FeatureNetwork) -> tuple[int, int]:
    """Return the (height, width) that a transformer was built for."""
    backbone = network.backbone
    if hasattr(backbone, 'timm_model'):
        backbone = getattr(backbone.timm_model, 'patch_embed', None)
    size = getattr(backbone, 'img_size', None) or _SIZE
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


class _Outputs(torch.nn.Module):
    """Network with the first ``number`` outputs of another one."""

    def __init__(self, network: FeatureNetwork, number: int) -> None:
        super().__init__()
        self.network = network
        self.number = number

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.network(images)[:self.number]


def _export(network: FeatureNetwork, images: torch.Tensor,
            outputs: Sequence[str],
            free: Sequence[int]) -> torch.onnx.ONNXProgram:
    """Export a network whose input has the free axes ``free`` besides N."""
    names = {0: 'batch', 2: 'height', 3: 'width'}
    model = _Outputs(network, len(outputs)).eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')  # on the exporter's own code
            return torch.onnx.export(
                model, (images, ), dynamo=True,
                input_names=[INPUT], output_names=list(outputs),
                dynamic_shapes=({x: names[x] for x in (0, *free)}, ),
                verbose=False)
    except Exception as e:  # the exporter may raise any type
        reason = ' '.join(str(e).split())[:200]
        raise ValueError(
            f'PyTorch {torch.__version__} cannot export the network to ONNX '
            f'({type(e).__name__}: {reason}): use another format') from None

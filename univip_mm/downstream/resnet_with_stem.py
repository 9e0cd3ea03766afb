"""ResNet that also returns the feature map of its stem."""
import torch

from ..registry import MODELS


@MODELS.register_module()
class ResNetWithStem(MODELS.get('ResNet')):
    """ResNet of the host with the outputs (stem, stage 1, ..., stage 4).

    The stem's output is taken after the ReLU, before the max pooling.
    """

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the five feature maps of images (B, 3, H, W)."""
        outputs = [self.relu(self.norm1(self.conv1(x)))]
        x = self.maxpool(outputs[0])
        for name in self.res_layers:
            x = getattr(self, name)(x)
            outputs.append(x)
        return tuple(outputs)

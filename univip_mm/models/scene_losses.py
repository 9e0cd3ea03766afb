"""Scene-scene and scene-instance loss (paper, Sec. 3.1 and 3.2)."""
import torch
from torch import Tensor, nn

from ..registry import HOST
from .l2_normalize import l2_normalize

if HOST == 'mmpretrain':
    from mmpretrain.models.losses import CosineSimilarityLoss
else:
    from mmselfsup.models.losses import CosineSimilarityLoss


def scene_losses(loss_module: nn.Module, f_o1: Tensor, f_o2: Tensor,
                 fused: Tensor, f_t1: Tensor,
                 f_t2: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the scene-scene loss and the scene-instance loss, two scalars.

    The scene-scene loss compares the online feature of each scene with the
    target feature of the other scene. The scene-instance loss compares the
    fused instances with the target features of both scenes. Each feature is
    normalized once, in float32 with autocast off, so that the losses and
    their gradients are finite for every finite input.

    Args:
        loss_module (nn.Module): Loss of ``LatentPredictHead``, called with
            the normalized prediction and target. The host's
            ``CosineSimilarityLoss`` is not called: its formula takes fewer
            operations for features that are normalized already.
        f_o1 (Tensor): Online feature of the first scene, (B, C).
        f_o2 (Tensor): The same for the second scene.
        fused (Tensor): Fused online features of the instances, (B, C).
        f_t1 (Tensor): Target feature of the first scene, (B, C). The targets
            get no gradient.
        f_t2 (Tensor): The same for the second scene.
    """
    with torch.autocast(f_o1.device.type, enabled=False):
        online = _stack_normalized(f_o1, f_o2, fused)
        target = _stack_normalized(f_t2.detach(), f_t1.detach())
        if type(loss_module) is not CosineSimilarityLoss:
            (p1, p2, p), (t2, t1) = online, target
            return (loss_module(p1, t2) + loss_module(p2, t1),
                    loss_module(p, t1) + loss_module(p, t2))
        # The mean over the batch, of the sum of two cosines.
        shift: float = 2 * loss_module.shift_factor  # type: ignore
        scale: float = loss_module.scale_factor / len(fused)  # type: ignore
        scenes, fused = ((x * target).sum() for x in online.split([2, 1]))
        return (torch.rsub(scenes, shift, alpha=scale),
                torch.rsub(fused, shift, alpha=scale))


def _stack_normalized(*features: Tensor) -> Tensor:
    """Stack and normalize features (B, C).

    The threshold of zero vectors depends on the type, so features of several
    types are normalized before they are stacked.
    """
    if len({x.dtype for x in features}) == 1:
        return l2_normalize(torch.stack(features))
    return torch.stack([l2_normalize(x) for x in features])

"""The UniVIP model: two branches and three loss terms (paper, Sec. 3)."""
from typing import Callable, Optional, Union

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.func import functional_call

from ..registry import HOST, MODELS
from .autocast_weights import autocast_weights
from .batch_norm import count_batches, prepare_batch_norm
from .ema import ForeachCosineEMA
from .l2_normalize import l2_normalize
from .pooling import pool
from .scene_losses import scene_losses
from .step_graph import StepGraph, use_plain_numbers
from .univip_neck import check_instance_count

if HOST == 'mmpretrain':
    from mmpretrain.models import BYOL
else:
    from mmselfsup.models import BYOL

Samples = Optional[list[BaseDataElement]]


@MODELS.register_module()
class UniVIP(BYOL):
    """UniVIP: A Unified Framework for Self-Supervised Visual Pre-training.

    Li et al., CVPR 2022, https://arxiv.org/abs/2203.06965. UniVIP replaces
    the loss of the host's BYOL by three terms: two scenes of an image agree,
    the fused instances agree with the scenes, and optimal transport matches
    the instances of the two branches.

    Notation of the paper: f_o is the online branch (backbone, projector,
    predictor). f_t is the target branch (backbone, projector), an exponential
    moving average of the online branch without gradient. o and t are the
    features of the instances in the two branches, (B, K, C).

    Args:
        backbone (dict): Config of the backbone.
        neck (dict): Config of the projector.
        head (dict): Config of the host's ``LatentPredictHead``: the predictor
            and the cosine loss.
        fusion_neck (dict): Config of the fusion layer, :class:`UniVIPNeck`.
        instance_loss (dict): Config of the instance-instance loss,
            :class:`SinkhornOTLoss` or any module with the same ``forward``.
            If the module has ``loss_and_log_vars``, UniVIP calls this method
            instead of ``forward`` and logs the values.
        base_momentum (float): Share of the online weights in the first update
            of the target. Falls to 0 over the training by a cosine. Defaults
            to 0.01 (EMA coefficient 0.99 to 1).
        loss_weights (dict, optional): Factors of the three terms, with the
            keys ``scene``, ``scene_instance`` and ``instance``. Missing keys
            have the factor 1.0, as in the paper.
        data_preprocessor (dict or nn.Module, optional): Config of the
            preprocessor. Its default type is :class:`UniVIPDataPreprocessor`.
        init_cfg (dict or list[dict], optional): Initialization config.
        graph (str, optional): How to run the losses of a training batch.
            None, the default, runs operation by operation. 'cuda_graph'
            captures forward and backward as CUDA graphs. 'inductor' also
            compiles the backbones before the capture, which takes minutes at
            the start. See :class:`StepGraph` and docs/performance.md.

    Attributes:
        steps_since_update (int, optional): Optimizer steps since the last
            update of the target, counted by ``TargetUpdateHook``. None
            without the hook: then each batch updates the target.
        skipped_step (Tensor, optional): 1 if the device skipped the last
            optimizer step, else 0; set by ``TargetUpdateHook``. The target
            does not move after a skipped step.

    Raises:
        ValueError: ``loss_weights`` has an unknown key. With the first
            training batch, ``graph`` is unknown or does not fit the machine.
        GraphError: The losses cannot be compiled or captured, or a later
            batch has other shapes.
    """

    def __init__(self, backbone: dict, neck: dict, head: dict,
                 fusion_neck: dict, instance_loss: dict,
                 base_momentum: float = 0.01,
                 loss_weights: Optional[dict[str, float]] = None,
                 data_preprocessor: Optional[Union[dict, nn.Module]] = None,
                 init_cfg: Optional[Union[dict, list[dict]]] = None,
                 graph: Optional[str] = None) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build({
                'type': 'UniVIPDataPreprocessor', **(data_preprocessor or {})})
        super().__init__(backbone=backbone, neck=neck, head=head,
                         base_momentum=base_momentum, init_cfg=init_cfg)
        # MMSelfSup's BYOL does not accept a built preprocessor.
        self.data_preprocessor = data_preprocessor
        self.target_net = ForeachCosineEMA(
            nn.Sequential(self.backbone, self.neck), momentum=base_momentum)
        self.steps_since_update: Optional[int] = None
        self.skipped_step: Optional[Tensor] = None
        self.graph = graph
        self._step_graph: Optional[StepGraph] = None
        self.fusion_neck = MODELS.build(fusion_neck)
        self.instance_loss = MODELS.build(instance_loss)
        self.loss_weights = dict(scene=1.0, scene_instance=1.0, instance=1.0)
        unknown = set(loss_weights or {}) - set(self.loss_weights)
        if unknown:
            raise ValueError(
                f'UniVIP: loss_weights has unknown keys {sorted(unknown)}: '
                f'use {list(self.loss_weights)}')
        self.loss_weights.update(loss_weights or {})

    def forward(self, inputs: Union[Tensor, list[Tensor]],
                data_samples: Samples = None, mode: str = 'tensor'):
        """Run the model in the mode ``tensor``, ``loss`` or ``predict``.

        MMPretrain's BYOL has no mode ``predict``. See :meth:`predict`.
        """
        if mode == 'predict':
            return self.predict(inputs, data_samples)  # type: ignore
        return super().forward(inputs, data_samples, mode)

    def train(self, mode: bool = True) -> 'UniVIP':
        """Set the training mode, and prepare the layers for one graph."""
        use_plain_numbers(self)
        for part in (self.backbone, self.neck, self.head, self.target_net):
            prepare_batch_norm(part)
        return super().train(mode)

    def extract_feat(self, inputs: Tensor,
                     data_samples: Samples = None) -> tuple[Tensor, ...]:
        """Return the outputs of the backbone for images (B, 3, H, W).

        MMSelfSup's BYOL takes a list of views here instead. Its ``forward``
        passes the data samples too.
        """
        return self.backbone(inputs)

    def predict(self, inputs: Tensor, data_samples: list[BaseDataElement]
                ) -> list[BaseDataElement]:
        """Write the pooled feature of images (B, 3, H, W) to the data samples.

        Each of the B data samples gets the field ``feature`` of shape (C,).
        """
        features = pool(self.extract_feat(inputs))
        for sample, feature in zip(data_samples, features):
            sample.set_field(feature, 'feature')
        return data_samples

    def loss(self, inputs: list[Tensor], data_samples: Samples = None,
             **kwargs) -> dict[str, Tensor]:
        """Compute the three losses of a batch.

        Args:
            inputs (list[Tensor]): [scene_1 (B, 3, H, W), scene_2
                (B, 3, H, W), instance_1 (B, 3, h, w), ..., instance_K]. With
                ``data_preprocessor.instance_views=2``, K more instance views
                follow, for the target branch.
            data_samples (list, optional): B data samples. Their
                ``num_proposed`` is logged as ``proposal_share``.
            **kwargs: Not used, as in the host's BYOL.

        Returns:
            dict[str, Tensor]: ``loss_scene``, ``loss_scene_instance``,
            ``loss_instance``, and detached values for the log.

        Raises:
            ValueError: The number of views does not match K.
        """
        instances = self._split_views(inputs)[1]
        share = _proposal_share(data_samples, len(instances), inputs[0])
        losses, log_vars = self._losses_function()(
            inputs, self._next_momentum(inputs[0].device))
        return {**losses, **log_vars, **share}

    def losses(self, views: list[Tensor], momentum: Tensor
               ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the losses of a batch, and update the target in between.

        The method depends only on its arguments, the weights and the buffers,
        and reads nothing on the host. So it can be compiled and captured as
        one graph.

        Args:
            views (list[Tensor]): ``inputs`` of :meth:`loss`.
            momentum (Tensor): Share of the online weights in the update of
                the target, a scalar; 0 leaves its parameters unchanged.

        Returns:
            tuple[dict, dict]: The three losses, and detached values for the
            log.
        """
        scenes, instances, target_instances = self._split_views(views)
        f_o1, f_o2, o, projection = self.forward_online(scenes, instances)
        self.target_net.move(
            nn.Sequential(self.backbone, self.neck), momentum)
        f_t1, f_t2, t = self.forward_target(scenes, target_instances)

        instance, log_vars = self.instance_term(o, t, f_o1, f_o2, f_t1, f_t2)
        scene, scene_instance = self.scene_terms(f_o1, f_o2, o, f_t1, f_t2)
        terms = dict(scene=scene, scene_instance=scene_instance,
                     instance=instance)
        losses = {f'loss_{name}': _weighted(term, self.loss_weights[name])
                  for name, term in terms.items()}
        return losses, dict(
            projection_std=projection_std(projection), **log_vars)

    def forward_online(self, scenes: list[Tensor], instances: list[Tensor]
                       ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the online branch: backbone, projector, predictor.

        Each scene passes on its own, with its own batch statistics, as in the
        host's BYOL. The instances pass as one batch (docs/decisions.md).

        Args:
            scenes (list[Tensor]): Two batches (B, 3, H, W).
            instances (list[Tensor]): K batches (B, 3, h, w).

        Returns:
            tuple: f_o of both scenes, (B, C) each, o (B, K, C), and the
            projection of the first scene, (B, C).
        """
        z1, z2, z = (self.neck(self.backbone(view))[0]
                     for view in (*scenes, torch.cat(instances)))
        count_batches(
            nn.ModuleList([self.backbone, self.neck, self.head]), passes=3)
        f_o1, f_o2, o = (self.head.predictor([x])[0] for x in (z1, z2, z))
        return f_o1, f_o2, _by_image(o, len(instances)), z1

    @torch.no_grad()
    def forward_target(self, scenes: list[Tensor], instances: list[Tensor]
                       ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the target branch: averaged backbone and projector.

        The arguments are those of :meth:`forward_online`. Return f_t of both
        scenes, (B, C) each, and t (B, K, C).
        """
        weights = autocast_weights(self.target_net, scenes[0].device.type)
        f_t1, f_t2, t = (functional_call(self.target_net, weights, view)[0]
                         if weights else self.target_net(view)[0]
                         for view in (*scenes, torch.cat(instances)))
        count_batches(self.target_net, passes=3)
        return f_t1, f_t2, _by_image(t, len(instances))

    def scene_terms(self, f_o1: Tensor, f_o2: Tensor, o: Tensor, f_t1: Tensor,
                    f_t2: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the scene-scene and the scene-instance loss.

        The two scenes agree (Sec. 3.1), and the fused instances agree with
        both scenes (Sec. 3.2).
        """
        fused = self.fusion_neck((o, ))[0]
        return scene_losses(self.head.loss_module, f_o1, f_o2, fused, f_t1,
                            f_t2)

    def instance_term(self, o: Tensor, t: Tensor, f_o1: Tensor, f_o2: Tensor,
                      f_t1: Tensor, f_t2: Tensor
                      ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the instance-instance loss (Sec. 3.3) and its log values.

        The relevance of an instance is computed with the mean feature of both
        scenes, as in the paper.
        """
        features = o, t, _mean(f_o1, f_o2), _mean(f_t1, f_t2)
        if hasattr(self.instance_loss, 'loss_and_log_vars'):
            return self.instance_loss.loss_and_log_vars(*features)
        return self.instance_loss(*features), {}

    def _losses_function(self) -> Callable:
        """Return :meth:`losses`, or its graph if the config asks for one."""
        if self.graph is None or not (
                self.training and torch.is_grad_enabled()):
            return self.losses
        if self._step_graph is None:
            self._step_graph = StepGraph(self, self.graph)
        return self._step_graph

    def __getstate__(self) -> dict:
        """Leave the graph out of copies: its kernels use these weights."""
        return {**self.__dict__, '_step_graph': None}

    @torch.no_grad()
    def _next_momentum(self, device: torch.device) -> Tensor:
        """Return the share of the online weights in the target's update.

        The share is 0 if no optimizer step was made since the last update.
        """
        share = 0.
        if self.steps_since_update != 0:
            share = self.target_net.next_momentum(
                nn.Sequential(self.backbone, self.neck))
        momentum = torch.full((), share, device=device)
        if self.skipped_step is not None:
            momentum = momentum * (1 - self.skipped_step)
        if self.steps_since_update is not None:
            self.steps_since_update = 0
        self.skipped_step = None
        return momentum

    def _split_views(self, inputs: list[Tensor]) -> tuple:
        """Split views into scenes, online instances and target instances."""
        scenes, instances = inputs[:2], inputs[2:]
        views = getattr(self.data_preprocessor, 'instance_views', 1)
        found = len(instances) / views
        num_instances = getattr(self.fusion_neck, 'num_instances',
                                max(int(found), 1))
        check_instance_count(found, num_instances,
                             'UniVIP: the number of instances per image')
        return scenes, instances[:num_instances], instances[-num_instances:]


def _by_image(features: Tensor, num_instances: int) -> Tensor:
    """Reshape (K * B, C), ordered by instance, to (B, K, C)."""
    return features.unflatten(0, (num_instances, -1)).transpose(0, 1)


def _weighted(loss: Tensor, weight: float) -> Tensor:
    return loss if weight == 1 else weight * loss  # saves two operations


def _mean(a: Tensor, b: Tensor) -> Tensor:
    return torch.add(a / 2, b, alpha=0.5)  # a + b could overflow


def _proposal_share(data_samples: Samples, num_instances: int,
                    view: Tensor) -> dict[str, Tensor]:
    """Return the share of instances that are proposals, not random boxes.

    The share is on the device of the ``view``.
    """
    counts = [sample.num_proposed for sample in data_samples or []
              if 'num_proposed' in sample]
    if not counts:
        return {}
    share = sum(counts) / (len(counts) * num_instances)
    return dict(proposal_share=view.new_full((), share))


@torch.no_grad()
def projection_std(projection: Tensor) -> Tensor:
    """Compute the spread of normalized projections (B, C), a scalar.

    The spread is the mean over the channels of the standard deviation, times
    sqrt(C). The value is about 1 for evenly spread directions, and 0 if all
    projections have collapsed to one direction (SimSiam,
    https://arxiv.org/abs/2011.10566, Fig. 2).
    """
    spread = l2_normalize(projection).std(dim=0, correction=0).mean()
    return spread * projection.shape[1]**0.5

from typing import Any, Optional, Union

import torch
from mmengine.structures import BaseDataElement
from torch import nn

from ..registry import MODELS
from .ema import ForeachCosineEMA
from .l2_normalize import l2_normalize

BYOL: Any = MODELS.get('BYOL')


@MODELS.register_module()
class UniVIP(BYOL):
    """UniVIP: A Unified Framework for Self-Supervised Visual Pre-training.

    Li et al., CVPR 2022, https://arxiv.org/abs/2203.06965. Three terms on top
    of the host's BYOL: two scenes of an image agree, the fused instances
    agree with the scenes, and the instances are told apart by optimal
    transport. Notation as in the paper: f_o is the online branch (backbone,
    projector, predictor), f_t the target branch (backbone, projector), which
    is an exponential moving average of the online one and has no gradient.

    Args:
        backbone (dict): Config of the backbone.
        neck (dict): Config of the projector.
        head (dict): Config of the host's ``LatentPredictHead``: the predictor
            and the cosine loss.
        fusion_neck (dict): Config of the fusion, :class:`UniVIPNeck`.
        instance_loss (dict): Config of the instance-instance loss,
            :class:`SinkhornOTLoss`, or any module with its ``forward``. What
            it leaves in ``statistics`` is logged.
        base_momentum (float): Share of the online weights in the first update
            of the target; falls to 0 over the training by a cosine. Defaults
            to 0.01 (EMA coefficient 0.99 to 1).
        loss_weights (dict, optional): Factors of the terms, with the keys
            ``scene``, ``scene_instance`` and ``instance``. A term left out
            has 1.0, the paper's. Defaults to None.
        data_preprocessor (dict or nn.Module, optional): Config of the
            preprocessor; its type is :class:`UniVIPDataPreprocessor` unless
            it says otherwise. Defaults to None.
        init_cfg (dict or list[dict], optional): Initialization config.
            Defaults to None.

    Raises:
        ValueError: ``loss_weights`` names an unknown term.
    """

    def __init__(self,
                 backbone: dict,
                 neck: dict,
                 head: dict,
                 fusion_neck: dict,
                 instance_loss: dict,
                 base_momentum: float = 0.01,
                 loss_weights: Optional[dict[str, float]] = None,
                 data_preprocessor: Optional[Union[dict, nn.Module]] = None,
                 init_cfg: Optional[Union[dict, list[dict]]] = None) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            data_preprocessor = MODELS.build({
                'type': 'UniVIPDataPreprocessor',
                **(data_preprocessor or {})
            })
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            base_momentum=base_momentum,
            init_cfg=init_cfg)
        # Set after, as MMSelfSup takes no module here.
        self.data_preprocessor = data_preprocessor
        self.target_net = ForeachCosineEMA(
            nn.Sequential(self.backbone, self.neck), momentum=base_momentum)
        # Of the optimiser, counted by TargetUpdateHook; None where nobody
        # counts, and the target moves with each batch.
        self.steps_since_update: Optional[int] = None
        self.fusion_neck = MODELS.build(fusion_neck)
        self.instance_loss = MODELS.build(instance_loss)
        self.loss_weights = dict(scene=1.0, scene_instance=1.0, instance=1.0)
        unknown = set(loss_weights or {}) - set(self.loss_weights)
        if unknown:
            raise ValueError(f'UniVIP: loss_weights has no {sorted(unknown)}; '
                             f'its keys are {list(self.loss_weights)}')
        self.loss_weights.update(loss_weights or {})

    def forward(self,
                inputs: Union[torch.Tensor, list[torch.Tensor]],
                data_samples: Optional[list[BaseDataElement]] = None,
                mode: str = 'tensor'):
        """As the host's, with one more mode: ``predict`` writes the pooled
        feature of each image, (C,), to ``feature`` of its data sample."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)  # type: ignore
        return super().forward(inputs, data_samples, mode)

    def extract_feat(
            self,
            inputs: torch.Tensor,
            data_samples: Optional[list[BaseDataElement]] = None
    ) -> tuple[torch.Tensor, ...]:
        """The backbone's outputs for images (B, 3, H, W). MMSelfSup's takes
        a list of views, and passes the data samples."""
        return self.backbone(inputs)

    def predict(
            self, inputs: torch.Tensor,
            data_samples: list[BaseDataElement]) -> list[BaseDataElement]:
        """Write the backbone's pooled feature to the data samples.

        Args:
            inputs (Tensor): Images of shape (B, 3, H, W).
            data_samples (list): B data samples.

        Returns:
            list: The data samples, each with ``feature`` of shape (C,).
        """
        features = self.extract_feat(inputs)[-1]
        if features.ndim == 4:
            features = features.mean((2, 3))
        for sample, feature in zip(data_samples, features):
            sample.set_field(feature, 'feature')
        return data_samples

    def loss(self, inputs: list[torch.Tensor],
             data_samples: Optional[list[BaseDataElement]] = None,
             **kwargs) -> dict[str, torch.Tensor]:
        """The three losses of a batch.

        Args:
            inputs (list[Tensor]): [scene_1 (B, 3, H, W), scene_2
                (B, 3, H, W), instance_1 (B, 3, h, w), ..., instance_K], and
                K more where the target branch has its own views of the
                instances (``data_preprocessor.instance_views``).
            data_samples (list, optional): B data samples; their
                ``num_proposed`` is logged as ``proposal_share``.

        Returns:
            dict[str, Tensor]: ``loss_scene``, ``loss_scene_instance``,
            ``loss_instance``, and detached statistics for the log.

        Raises:
            ValueError: The number of views is neither 2 + K nor 2 + 2 K.
        """
        scenes, instances, target_instances = self._split_views(inputs)

        # The scenes pass one by one, each with its own batch statistics, as in
        # the host's BYOL; the instances as one batch (docs/decisions.md).
        projections = [self.neck(self.backbone(view))[0] for view in scenes]
        f_o1, f_o2 = (self._predict_latent(z) for z in projections)
        o = _by_image(self._predict_latent(
            self.neck(self.backbone(torch.cat(instances)))[0]), len(instances))
        with torch.no_grad():
            self._update_target()
            f_t1, f_t2 = (self.target_net(view)[0] for view in scenes)
            t = _by_image(self.target_net(torch.cat(target_instances))[0],
                          len(instances))

        # Sec. 3.1: the two scenes agree, through what they share.
        loss_scene = self._cosine_loss(f_o1, f_t2) + self._cosine_loss(
            f_o2, f_t1)
        # Sec. 3.2: the instances together make up the scene.
        fused = self.fusion_neck((o, ))[0]
        loss_scene_instance = self._cosine_loss(
            fused, f_t1) + self._cosine_loss(fused, f_t2)
        # Sec. 3.3: each instance finds its own among the image's others.
        loss_instance = self.instance_loss(o, t, _mean(f_o1, f_o2),
                                           _mean(f_t1, f_t2))

        weights = self.loss_weights
        return dict(
            loss_scene=weights['scene'] * loss_scene,
            loss_scene_instance=weights['scene_instance'] *
            loss_scene_instance,
            loss_instance=weights['instance'] * loss_instance,
            projection_std=projection_std(projections[0]),
            **getattr(self.instance_loss, 'statistics', {}),
            **self._proposal_share(data_samples, len(instances)))

    def _update_target(self) -> None:
        """Move the target towards the online branch."""
        if self.steps_since_update == 0:
            return
        self.target_net.update_parameters(
            nn.Sequential(self.backbone, self.neck))
        if self.steps_since_update is not None:
            self.steps_since_update = 0

    def _split_views(self, inputs: list[torch.Tensor]) -> tuple:
        """The scenes, and the instances of the online branch and of the
        target's."""
        scenes, instances = inputs[:2], inputs[2:]
        views = getattr(self.data_preprocessor, 'instance_views', 1)
        number = getattr(self.fusion_neck, 'num_instances',
                         len(instances) // views)
        if not number or len(instances) != views * number:
            raise ValueError(
                f'UniVIP got {len(inputs)} views of an image where its fusion '
                f'neck needs 2 scenes and {views * number} views of instances:'
                ' give num_instances of OverlapSceneCrop and of '
                'model.fusion_neck the same value')
        return scenes, instances[:number], instances[-number:]

    def _predict_latent(self, projection: torch.Tensor) -> torch.Tensor:
        return self.head.predictor([projection])[0]

    def _cosine_loss(self, prediction: torch.Tensor,
                     target: torch.Tensor) -> torch.Tensor:
        """-cos, mean over the batch, by the host's loss. It gets vectors of
        length one in float32, so it is finite whatever comes in."""
        with torch.autocast(prediction.device.type, enabled=False):
            return self.head.loss_module(
                l2_normalize(prediction), l2_normalize(target.detach()))

    @staticmethod
    def _proposal_share(data_samples: Optional[list],
                        num_instances: int) -> dict[str, torch.Tensor]:
        counts = [
            sample.num_proposed for sample in data_samples or []
            if 'num_proposed' in sample
        ]
        if not counts:
            return {}
        share = sum(counts) / (len(counts) * num_instances)
        return dict(proposal_share=torch.tensor(share))


def _by_image(features: torch.Tensor, number: int) -> torch.Tensor:
    """Features of all first instances, all second, ..., (K B, C), as
    (B, K, C)."""
    return features.unflatten(0, (number, -1)).transpose(0, 1)


def _mean(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a / 2 + b / 2  # halved first: the sum may not be finite


@torch.no_grad()
def projection_std(projection: torch.Tensor) -> torch.Tensor:
    """Spread of normalised projections over the batch.

    Mean over the channels of the standard deviation, times sqrt(C): about 1
    where the directions are spread evenly, 0 where all have collapsed into
    one (SimSiam, https://arxiv.org/abs/2011.10566, Fig. 2).

    Args:
        projection (Tensor): (B, C).

    Returns:
        Tensor: A scalar.
    """
    directions = l2_normalize(projection)
    spread = directions.std(dim=0, correction=0).mean()
    return spread * projection.shape[1]**0.5

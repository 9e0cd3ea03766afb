"""Rows of the table of training steps: what is measured, in which order."""
from typing import Callable, NamedTuple, Optional

from mmengine.config import Config

from .graphs import BareUniVIP, GraphBYOL
from .step import TrainingStep, byol_config, host_wrapper, recipe_wrapper


class Row(NamedTuple):
    """A kind of training step.

    ``kind`` is ``univip``, ``byol`` (the host's) or ``bare`` (arithmetic).
    ``precision`` is None for float32, ``bf16``, or ``amp`` for float16 as the
    host ships it. ``graph`` is the option of UniVIP, None for eager.
    """
    kind: str
    precision: Optional[str] = None
    graph: Optional[str] = None

    @property
    def name(self) -> str:
        """Return the name of the row in the table."""
        return ' '.join([self.kind, self.precision or 'float32',
                         *([self.graph] if self.graph else [])])


# In order of importance.
GPU_ROWS = [
    Row('byol', 'amp'), Row('univip', 'bf16'), Row('univip'), Row('byol'),
    Row('univip', 'bf16', 'inductor'), Row('bare', 'bf16', 'inductor'),
    Row('univip', 'bf16', 'cuda_graph'), Row('byol', 'bf16', 'inductor'),
    Row('bare', 'bf16', 'cuda_graph')]
CPU_ROWS = [Row('univip'), Row('byol'), Row('univip', 'bf16'), Row('bare')]


def build_step(row: Row, config: Callable[[Optional[str]], Config],
               batches: list[dict]) -> Callable:
    """Build the step of a row.

    Args:
        row (Row): The row.
        config (Callable): Returns UniVIP's config of a precision, None or
            ``bf16``.
        batches (list[dict]): Collated batches of UniVIP's views.
    """
    if row.kind == 'byol':
        return _build_byol(row, byol_config(config(None)), batches)
    model = config(row.precision)
    model.graph = row.graph
    if row.kind == 'bare':
        model.type = BareUniVIP
    return TrainingStep(model, batches, recipe_wrapper(row.precision))


def _build_byol(row: Row, model: dict, batches: list[dict]) -> TrainingStep:
    """Build BYOL as the host ships it, or as a graph in the way of UniVIP."""
    scenes = [dict(batch, inputs=batch['inputs'][:2]) for batch in batches]
    if not row.graph:
        return TrainingStep(model, scenes, host_wrapper(row.precision))
    model.update(type=GraphBYOL, graph=row.graph)
    return TrainingStep(model, scenes, recipe_wrapper(row.precision))

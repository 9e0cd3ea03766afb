"""Report of a training that is refreshed while the training runs."""
import time
from typing import Any, Optional

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from ...registry import HOOKS
from ...utils.unwrap import unwrap_model
from .effective_rank_hook import evaluation_mode
from .online_probe_hook import preserve_state


@HOOKS.register_module()
class ReportHook(Hook):
    """Hook that writes ``report.html`` during and after the training.

    Rank 0 writes the file with
    :func:`univip_mm.visualization.report.write_report`. After the training,
    it also draws the nearest neighbours of some training images, with the
    trained network. An error in the report is logged once as a warning and
    does not stop the training. Weights, buffers and random states do not
    change.

    Args:
        out (str, optional): Folder of the report, the work dir or the folder
            above its ``checkpoints``. Defaults to the work dir.
        seconds (float): Time between two reports. A report that takes long is
            written less often, so that at most one of 50 seconds is spent.
            Defaults to 60.
        neighbours (bool): Draw the nearest neighbours. Defaults to True.

    Raises:
        ValueError: ``seconds`` is negative.
    """
    # After CheckpointHook and LoggerHook, whose files the report reads.
    priority = 'LOWEST'

    def __init__(self, out: Optional[str] = None, seconds: float = 60.,
                 neighbours: bool = True) -> None:
        if not seconds >= 0:
            raise ValueError(f'ReportHook: seconds is {seconds}, but must be '
                             'at least 0')
        self.out = out
        self.seconds = seconds
        self.neighbours = neighbours
        self._has_warned = False
        self._next = 0.

    def before_train(self, runner) -> None:
        """Plan the first report soon: a user looks for it at the start."""
        self._next = time.monotonic() + min(self.seconds, 10.)

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        """Write the report if its time has come."""
        if is_main_process() and time.monotonic() >= self._next:
            start = time.monotonic()
            self._write(runner, 'running')
            end = time.monotonic()
            self._next = end + max(self.seconds, 50 * (end - start))

    def after_train(self, runner) -> None:
        """Write the last report."""
        if is_main_process():
            if self.neighbours:
                self._try(runner, _draw_neighbours, self._folder(runner))
            self._write(runner, 'finished' if runner.iter >= runner.max_iters
                        else 'stopped')

    def _folder(self, runner) -> str:
        return self.out or runner.work_dir

    def _write(self, runner, state: str) -> None:
        # Slow to import, so only if a report is written.
        def write(runner, folder) -> None:
            from ...visualization.report import write_report
            write_report(folder, state)

        self._try(runner, write, self._folder(runner))

    def _try(self, runner, function, folder: str) -> None:
        """Call the function; log its first error as a warning."""
        try:
            function(runner, folder)
        except Exception as e:  # a report must not stop the training
            if not self._has_warned:
                runner.logger.warning(
                    f'the report is incomplete: {type(e).__name__}: {e}')
            self._has_warned = True


def _draw_neighbours(runner, folder: str) -> None:
    """Draw the nearest neighbours with the network of the runner."""
    from ...visualization.inspection import Setup
    from ...visualization.neighbours import write_neighbours_of_run
    from ...visualization.training_views import open_views
    model = unwrap_model(runner.model)
    source = open_views(runner.train_dataloader.dataset)
    with preserve_state(), evaluation_mode(model):
        write_neighbours_of_run(
            folder, Setup(model, source.dataset, source.crop))

"""Checkpoints that are either complete or absent."""
import os
import os.path as osp
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.optim import ZeroRedundancyOptimizer

from ...io.atomic import atomic_write
from ...registry import HOOKS
from ...utils.text import printable

BACKEND = dict(backend='univip_mm')


@register_backend('univip_mm', force=True)
class AtomicBackend(LocalBackend):
    """File backend of MMEngine with atomic writes of regular files."""

    def put(self, obj: bytes, filepath: str) -> None:
        """Write bytes atomically; the folder is created.

        Raises:
            OSError: The file cannot be written, or the path belongs to a
                device, a pipe or a folder.
        """
        if osp.exists(filepath) and not osp.isfile(filepath):
            raise FileExistsError(f"'{printable(filepath)}' is not a regular "
                                  'file: remove it')
        with atomic_write(filepath) as file:
            file.write(obj)


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` with atomic writes.

    A checkpoint is written to a temporary file, synced to the disk and
    renamed. Then ``last_checkpoint`` is updated in the same way. Only then an
    older checkpoint is removed. So the checkpoint in ``last_checkpoint`` is
    complete, even if the process is killed at any moment. Temporary files of
    killed trainings are removed when the next one starts.

    If a checkpoint cannot be written, for example on a full disk, the hook
    logs an error, keeps the older checkpoints, and the training continues.
    Only the last checkpoint of the training must be written.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: The last checkpoint of the training cannot be written.
    """

    def before_train(self, runner) -> None:
        """Find the output folder, and remove temporary files in it."""
        _drop_foreign_paths(runner.message_hub.runtime_info, self.out_dir)
        super().before_train(runner)
        if '://' in self.out_dir:
            return
        if self.file_client_args is None and self.backend_args is None:
            self.backend_args = BACKEND  # of the best checkpoints
        if is_main_process():
            for pattern in ('.*.pth.*.part', '.last_checkpoint.*.part'):
                for part in Path(self.out_dir).glob(pattern):
                    part.unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        if '://' in self.out_dir:  # remote: the file backend writes it
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        obsolete = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            obsolete = [*self.keep_ckpt_ids, step][:-self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)  # the deque drops the oldest
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        try:
            self.last_ckpt = save_checkpoint_atomically(
                runner, self.out_dir, name, self.by_epoch, meta,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, **self.args)
        except OSError as e:
            if self._is_last(runner):
                raise
            path = printable(osp.join(self.out_dir, name))
            runner.logger.error(
                f"cannot write the checkpoint '{path}' ({printable(e)}): the "
                'training continues and keeps the earlier checkpoints; free '
                'disk space before the next one')
            return
        if is_main_process():
            for old in obsolete:
                path = osp.join(self.out_dir, self.filename_tmpl.format(old))
                if osp.isfile(path):
                    os.remove(path)

    def _is_last(self, runner) -> bool:
        return (self.is_last_train_epoch(runner)
                if self.by_epoch else self.is_last_train_iter(runner))


def _drop_foreign_paths(info: dict, folder: str) -> None:
    """Remove values of a resumed checkpoint that name files to be deleted.

    MMEngine deletes the previous best checkpoint, file or folder, when there
    is a better one, and the checkpoints in ``keep_ckpt_ids``.
    """
    for key, value in list(info.items()):
        is_best = str(key).startswith('best_ckpt') and not (
            isinstance(value, str) and osp.isfile(value)
            and osp.dirname(osp.realpath(value)) == osp.realpath(folder)
            and osp.basename(value).startswith('best_')
            and value.endswith('.pth'))
        is_step = key == 'keep_ckpt_ids' and not (
            isinstance(value, list) and all(type(x) is int for x in value))
        if is_best or is_step:
            del info[key]


def save_checkpoint_atomically(runner, folder: str, name: str, by_epoch: bool,
                               meta: dict, **options) -> str:
    """Write a checkpoint atomically and name it in ``last_checkpoint``.

    Call this function on all ranks; the first rank writes. The arguments are
    those of ``Runner.save_checkpoint``. Return the path of the checkpoint.

    Raises:
        OSError: The file cannot be written; no part of it remains.
    """
    path = osp.join(folder, name)
    runner.message_hub.update_info('last_ckpt', path)
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    if (isinstance(optimizer, ZeroRedundancyOptimizer)
            and not is_main_process() and options.get('save_optimizer', True)):
        # MMEngine collects the parts of the ranks on the first rank only,
        # where it waits for the others.
        optimizer.state_dict()
    runner.save_checkpoint(folder, name, meta=meta, by_epoch=by_epoch,
                           backend_args=BACKEND, **options)
    if is_main_process():
        AtomicBackend().put(
            os.fsencode(path), osp.join(runner.work_dir, 'last_checkpoint'))
    return path

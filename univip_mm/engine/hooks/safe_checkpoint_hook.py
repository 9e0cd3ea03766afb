"""Checkpoints that are either complete or absent."""
import os
import os.path as osp

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ...io.atomic import atomic_write, replace_durably
from ...registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` with atomic writes.

    A checkpoint is written to a temporary file, synced to the disk and
    renamed. Then ``last_checkpoint`` is updated in the same way. Only then an
    older checkpoint is removed. So the checkpoint in ``last_checkpoint`` is
    complete, even if the process is killed at any moment.

    If a checkpoint cannot be written, for example on a full disk, the hook
    logs an error, keeps the older checkpoints, and the training continues.
    Only the last checkpoint of the training must be written.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: The last checkpoint of the training cannot be written.
    """

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
            runner.logger.error(
                f"cannot write the checkpoint '{osp.join(self.out_dir, name)}'"
                f' ({e}): the training continues and keeps the earlier '
                'checkpoints; free disk space before the next one')
            return
        if is_main_process():
            for old in obsolete:
                path = osp.join(self.out_dir, self.filename_tmpl.format(old))
                if osp.isfile(path):
                    os.remove(path)

    def _is_last(self, runner) -> bool:
        return (self.is_last_train_epoch(runner)
                if self.by_epoch else self.is_last_train_iter(runner))


def save_checkpoint_atomically(runner, folder: str, name: str, by_epoch: bool,
                               meta: dict, **options) -> str:
    """Write a checkpoint atomically and name it in ``last_checkpoint``.

    Call this function on all ranks; the first rank writes. The arguments are
    those of ``Runner.save_checkpoint``. Return the path of the checkpoint.

    Raises:
        OSError: The file cannot be written; no part of it remains.
    """
    path = osp.join(folder, name)
    part = f'{path}.part'
    runner.message_hub.update_info('last_ckpt', path)
    try:
        # The Runner takes a path, so atomic_write does not fit.
        runner.save_checkpoint(folder, osp.basename(part), meta=meta,
                               by_epoch=by_epoch, **options)
        if is_main_process():
            replace_durably(part, path)
            with atomic_write(osp.join(runner.work_dir, 'last_checkpoint'),
                              'w') as file:
                file.write(path)
    except OSError:
        if is_main_process() and osp.exists(part):
            os.remove(part)
        raise
    return path

import os
import os.path as osp

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook

from ...registry import HOOKS


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """The host's ``CheckpointHook``, which never leaves less than a whole
    checkpoint behind.

    A checkpoint is written beside its place, brought to the disk, and renamed
    into it; then ``last_checkpoint`` names it, likewise; only then an older
    one is removed. So whenever the process is killed, the one that
    ``last_checkpoint`` names is there and whole. Where a checkpoint cannot be
    written, as on a full disk, the training goes on with the older ones kept,
    and says so; it fails where it was the last of the training.

    Args:
        **kwargs: For :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        OSError: The last checkpoint of the training cannot be written.
    """

    def _save_checkpoint_with_step(self, runner, step: int,
                                   meta: dict) -> None:
        if '://' in self.out_dir:  # not on a disk; its back end's affair
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        obsolete = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            kept = [*self.keep_ckpt_ids, step]
            obsolete = kept[:-self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)  # drops the oldest itself
            runner.message_hub.update_info('keep_ckpt_ids',
                                           list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        try:
            self.last_ckpt = save_whole(
                runner, self.out_dir, name, self.by_epoch, meta,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler, **self.args)
        except OSError as e:
            if self._is_last(runner):
                raise
            runner.logger.error(
                f"cannot write the checkpoint '{osp.join(self.out_dir, name)}'"
                f' ({e}): the training goes on, and the checkpoints before it '
                'are kept; make room before the next one')
            return
        if is_main_process():
            for old in obsolete:
                path = osp.join(self.out_dir, self.filename_tmpl.format(old))
                if osp.isfile(path):
                    os.remove(path)

    def _is_last(self, runner) -> bool:
        return (self.is_last_train_epoch(runner)
                if self.by_epoch else self.is_last_train_iter(runner))


def save_whole(runner, folder: str, name: str, by_epoch: bool, meta: dict,
               **options) -> str:
    """Write the Runner's checkpoint so that it is either whole or not there,
    and name it in ``last_checkpoint``.

    To be called on all ranks; the first one writes.

    Returns:
        str: Its path.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    path = osp.join(folder, name)
    part = f'{path}.part'
    runner.message_hub.update_info('last_ckpt', path)
    try:
        runner.save_checkpoint(folder, osp.basename(part), meta=meta,
                               by_epoch=by_epoch, **options)
        if is_main_process():
            _put_in_place(part, path)
            note = osp.join(runner.work_dir, 'last_checkpoint')
            with open(f'{note}.part', 'w') as file:
                file.write(path)
            _put_in_place(f'{note}.part', note)
    except OSError:
        if is_main_process() and osp.exists(part):
            os.remove(part)
        raise
    return path


def _put_in_place(part: str, path: str) -> None:
    """Bring a file to the disk, then give it its name."""
    with open(part, 'rb+') as file:
        os.fsync(file.fileno())
    os.replace(part, path)

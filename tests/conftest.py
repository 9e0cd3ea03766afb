import logging
import signal

import cv2
import hypothesis
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from tiny import make_coco_folder

# One thread: the tensors are small, and the results must not depend on the
# machine.
torch.set_num_threads(1)
# A forked process would wait for OpenCV's threads, which it does not inherit.
cv2.setNumThreads(1)

hypothesis.settings.register_profile(
    'univip', deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile('univip')


# The files that take longest, from the slowest on.
SLOW_FILES = ('test_commands', 'test_resume', 'test_run_demo', 'test_main',
              'test_test', 'test_online_probe_hook', 'test_train',
              'test_changed_run', 'test_step_graph', 'test_tracking')


def pytest_collection_modifyitems(items):
    """Run the slowest files first, so that all workers end together."""
    order = {f'{name}.py': i for i, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture
def univip_scope():
    """Set the default scope, as a Runner with one of our configs does."""
    with DefaultScope.overwrite_default_scope('univip_mm'):
        yield


@pytest.fixture
def terminal():
    """Take the signals that nohup and a shell in the background ignore."""
    before = {number: signal.signal(number, handler) for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL))}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def logged():
    """Collect the messages of MMEngine's logger in a list."""
    texts = []
    handler = logging.Handler()
    handler.emit = lambda record: texts.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


@pytest.fixture
def coco_folder(tmp_path):
    """Write a data set of 8 small images and return its folder.

    It has ``images/``, ``train.json`` (ids 10, 20, ..., 80) and
    ``train.npz``, in which image 80 has no box.
    """
    return make_coco_folder(tmp_path)

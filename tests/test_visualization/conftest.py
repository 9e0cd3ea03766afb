import numpy as np
import pytest
import torch
from mmengine.config import Config
from visual_files import write_run

from univip_mm.visualization.inspection import (
    Setup,
    load_dataset,
    load_model,
)


@pytest.fixture
def run_files(coco_folder, univip_scope):
    """A config and a checkpoint, with annotations."""
    return write_run(coco_folder)


@pytest.fixture
def setup(run_files):
    config, path = run_files
    cfg = Config.fromfile(config)
    model = load_model(cfg, torch.load(path), path)
    np.random.seed(0)
    return Setup(cfg, model, *load_dataset(cfg))

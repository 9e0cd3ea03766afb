import pytest
from visual_files import write_run

from univip_mm.visualization.inspection import load_setup, make_parser


@pytest.fixture
def run_files(coco_folder, univip_scope):
    """A config and a checkpoint, with annotations."""
    return write_run(coco_folder)


@pytest.fixture
def setup(run_files):
    return load_setup(make_parser('', '', 1, 'images').parse_args(
        [*map(str, run_files), '--out', 'x.png']))

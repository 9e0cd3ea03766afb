"""No tool executes code in a file that it loads."""
import json
import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config
from tiny import error_of, write_config

from univip_mm.engine.replay import save_replay
from univip_mm.proposals import ProposalFile


class Payload:
    """Object that creates a file when it is unpickled unsafely."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}', )


@pytest.fixture
def canary(tmp_path):
    """Path of a file that must not be created."""
    path = tmp_path / 'canary'
    yield path
    assert not path.exists()


@pytest.fixture
def evil(canary, tmp_path):
    """Write a checkpoint that contains code."""
    path = tmp_path / 'evil.pth'
    torch.save(
        dict(state_dict={}, meta=dict(epoch=1, iter=4),
             optimizer=Payload(canary)), path)
    return path


def refused(message, path):
    assert str(path) in message and 'posix.system' in message


@pytest.mark.parametrize('option', ['--resume', 'load_from'])
def test_train_refuses_code_in_checkpoint(coco_folder, evil, option):
    options = (['--resume', evil] if option == '--resume' else
               ['--cfg-options', f'load_from={evil}'])
    refused(error_of('train', write_config(coco_folder), '--work-dir',
                     coco_folder / 'out', *options), evil)


def test_resume_refuses_code_in_latest_checkpoint(coco_folder, evil):
    out = coco_folder / 'out'
    out.mkdir()
    (out / 'last_checkpoint').write_text(str(evil))
    refused(error_of('train', write_config(coco_folder), '--work-dir', out,
                     '--resume'), evil)


def test_test_refuses_code_in_checkpoint(coco_folder, evil):
    config = write_config(coco_folder)
    config.write_text(config.read_text() + f"""
test_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler'),
    dataset=dict(
        type='ProposalCocoDataset', data_root={str(coco_folder)!r},
        ann_file='train.json', proposal_file='train.npz'))
test_dataloader['dataset']['data_prefix'] = dict(img_path='images')
test_evaluator = dict(type='MultiLabelProbe')
test_cfg = dict(type='TestLoop')
""")
    refused(error_of('test', config, evil, '--work-dir',
                     coco_folder / 'out'), evil)


def test_extract_backbone_refuses_code(evil, tmp_path):
    refused(error_of('extract_backbone', evil, tmp_path / 'out.pth'), evil)


def test_replay_batch_refuses_code(evil):
    refused(error_of('replay_batch', evil), evil)


@pytest.mark.parametrize('part', [
    dict(type='os.system', command='touch {}'),
    dict(type='ReLU', inner=dict(type='subprocess.getoutput', cmd='touch {}')),
    dict(type='ReLU', _scope_='antigravity'),
])
def test_replay_batch_refuses_code_in_config(canary, tmp_path, part):
    path = tmp_path / 'replay.pth'
    part = json.loads(json.dumps(part).replace('{}', str(canary)))
    save_replay(path, torch.nn.Linear(1, 1), [], Config(dict(model=part)),
                iteration=1, rank=0, precision='float32', found='')
    message = error_of('replay_batch', path)
    assert 'is not a registered model' in message or '_scope_' in message


def test_convert_proposals_refuses_code_in_pickle(coco_folder, canary):
    path = coco_folder / 'evil.pkl'
    path.write_bytes(pickle.dumps(dict(bbox={'1.jpg': Payload(canary)})))
    refused(error_of('convert_proposals', 'pickle', path,
                     '--ann-file', coco_folder / 'train.json', '--out',
                     coco_folder / 'new.npz'), path)


@pytest.mark.parametrize('name', ['image_ids', 'boxes', 'meta'])
def test_proposal_file_refuses_object_arrays(canary, tmp_path, name):
    arrays = dict(image_ids=np.array([1]), offsets=np.array([0, 0]),
                  boxes=np.zeros((0, 4)), names=np.zeros(0, np.uint32),
                  meta=np.zeros(2, np.uint8))
    arrays[name] = np.array([Payload(canary)])
    np.savez(tmp_path / 'evil.npz', **arrays)
    with pytest.raises(ValueError, match=f'{name} is not a plain array'):
        ProposalFile(tmp_path / 'evil.npz')


def test_tools_refuse_paths_outside_folder(coco_folder):
    path = coco_folder / 'train.json'
    content = json.loads(path.read_text())
    content['images'][3]['file_name'] = '../../etc/passwd'
    path.write_text(json.dumps(content))
    for arguments in (('train', write_config(coco_folder), '--work-dir',
                       coco_folder / 'out'),
                      ('generate_proposals', '--img-prefix',
                       coco_folder / 'images', '--ann-file', path, '--out',
                       coco_folder / 'new.npz'),
                      ('inspect_proposals', coco_folder / 'train.npz',
                       '--ann-file', path)):
        message = error_of(*arguments)
        assert "image id 40 the file_name '../../etc/passwd'" in message

"""No tool executes code in a file that it loads."""
import json
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging.history_buffer import HistoryBuffer
from payload import Payload
from tiny import error_of, write_config

from univip_mm.engine.replay import FORMAT, save_replay
from univip_mm.proposals import ProposalFile


@pytest.fixture
def canary(tmp_path):
    """Path of a file that must not be created."""
    path = tmp_path / 'canary'
    yield path
    assert not path.exists()


class Attributes(OrderedDict):
    """OrderedDict with attributes that NumPy reads as an address."""

    def __reduce__(self):
        return OrderedDict, (), dict(__array_interface__=dict(
            version=3, shape=(1 << 30, ), typestr='|u1', data=(8, False)))


class Call:
    """Object that pickles as a function call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_address(canary):
    """Return a HistoryBuffer over any address, and an array of it."""
    buffer = HistoryBuffer()
    vars(buffer).clear()
    vars(buffer).update(_log_history=Attributes(), _count_history=Attributes(),
                        max_length=3, __array_interface__=dict(version=3))
    return buffer


def with_array_of_address(canary):
    return Call(np.array, Attributes())


def with_strides(canary):
    return Call(np.ndarray, (1 << 20, ), np.dtype('u1'), b'12345678', -1 << 20,
                (1, ))


def with_objects(canary):
    """Return an array of object addresses, which is a number elsewhere."""
    return np.array([Payload(canary)])


# Value in the checkpoint, and a word of the message.
ATTACKS = dict(
    code=(Payload, 'posix.system'),
    address=(with_address, 'HistoryBuffer'),
    array_of_address=(with_array_of_address, 'array'),
    strides=(with_strides, '_Ndarray'),
    objects=(with_objects, 'posix.system'))


@pytest.fixture(params=ATTACKS)
def attack(request):
    """Name of an attack."""
    return request.param


@pytest.fixture
def evil(canary, tmp_path, attack):
    """Write a checkpoint, or a replay file, with an attack."""
    path = tmp_path / 'evil.pth'
    value, _ = ATTACKS[attack]
    torch.save(
        dict(state_dict={}, meta=dict(epoch=1, iter=4), format=FORMAT,
             message_hub=dict(log_scalars={}, runtime_info={},
                              resumed_keys={}), optimizer=value(canary)),
        path)
    return path


def refused(message, path, attack='code'):
    assert str(path) in message and ATTACKS[attack][1] in message


@pytest.mark.parametrize('option', ['--resume', 'load_from'])
def test_train_refuses_attack(coco_folder, evil, attack, option):
    options = (['--resume', evil] if option == '--resume' else
               ['--cfg-options', f'load_from={evil}'])
    refused(error_of('train', write_config(coco_folder), '--work-dir',
                     coco_folder / 'out', *options), evil, attack)


def test_resume_refuses_attack_in_latest_file(coco_folder, evil, attack):
    out = coco_folder / 'out'
    out.mkdir()
    (out / 'last_checkpoint').write_text(str(evil))
    refused(error_of('train', write_config(coco_folder), '--work-dir', out,
                     '--resume'), evil, attack)


@pytest.mark.parametrize('attack', ['code'], indirect=True)
def test_train_refuses_code_in_initial_weights(coco_folder, evil):
    refused(error_of(
        'train', write_config(coco_folder), '--work-dir', coco_folder / 'out',
        '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={evil}'), evil)


@pytest.mark.parametrize('attack', ['code'], indirect=True)
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


def test_extract_backbone_refuses_attack(evil, tmp_path, attack):
    refused(error_of('extract_backbone', evil, tmp_path / 'out.pth'), evil,
            attack)


@pytest.mark.parametrize('attack', ['code'], indirect=True)
def test_export_and_embed_refuse_attack(evil, tmp_path):
    out = tmp_path / 'out.npz'
    refused(error_of('export', evil, '--out', out), evil)
    refused(error_of('embed', evil, tmp_path, '--out', out), evil)


def test_replay_batch_refuses_attack(evil, attack):
    refused(error_of('replay_batch', evil), evil, attack)


def test_tools_refuse_two_zip_directories(coco_folder, tmp_path):
    """Python's zipfile sees a checkpoint, PyTorch may see TorchScript."""
    path, script = tmp_path / 'evil.pth', tmp_path / 'script.pth'
    torch.jit.script(torch.nn.ReLU()).save(str(script))
    torch.save({}, path)
    both = [script.read_bytes(), path.read_bytes()]
    for content in (both[0] + both[1], both[1] + both[0]):
        path.write_bytes(content)
        for arguments in (
                ('train', write_config(coco_folder), '--resume', path,
                 '--work-dir', coco_folder / 'out'),
                ('extract_backbone', path, tmp_path / 'out.pth'),
                ('replay_batch', path)):
            assert str(path) in error_of(*arguments)


@pytest.mark.parametrize('content, words', [
    ({'backbone.a': 3, 'target_net.module.0.a': 3}, "'backbone.a' is a int"),
    ({'backbone.a': [torch.ones(1)], 'target_net.module.0.a': 3}, 'a list'),
    ({3: torch.ones(1)}, 'not a string, but a int'),
    ([1], 'state_dict is a list')])
def test_extract_backbone_refuses_other_values(tmp_path, content, words):
    path = tmp_path / 'x.pth'
    torch.save(dict(state_dict=content, meta=3), path)
    words = words.replace('backbone.a', 'a')
    message = error_of('extract_backbone', path, tmp_path / 'out.pth')
    assert str(path) in message and words in message


@pytest.mark.parametrize('part', [
    dict(type='os.system', command='touch {}'),
    dict(type='ReLU', inner=dict(type='subprocess.getoutput', cmd='touch {}')),
    dict(type='ReLU', _scope_='antigravity'),
    dict(type='ReLU', inner=dict(type='ReLU', pretrained='{}')),
    dict(type='ReLU', trust_remote_code=True),
])
def test_replay_batch_refuses_code_in_config(canary, tmp_path, part):
    path = tmp_path / 'replay.pth'
    part = json.loads(json.dumps(part).replace('{}', str(canary)))
    save_replay(path, torch.nn.Linear(1, 1), [], Config(dict(model=part)),
                iteration=1, rank=0, precision='float32', found='')
    message = error_of('replay_batch', path)
    assert str(path) in message and (
        'is not a registered model' in message
        or 'would load a file or a module' in message)


def test_convert_proposals_refuses_code_in_pickle(coco_folder, canary):
    path = coco_folder / 'evil.pkl'
    path.write_bytes(pickle.dumps(dict(bbox={'1.jpg': Payload(canary)})))
    message = error_of('convert_proposals', 'pickle', path, '--ann-file',
                       coco_folder / 'train.json', '--out',
                       coco_folder / 'new.npz')
    assert 'pickles are not read, because they can run code' in message


@pytest.mark.parametrize('name', ['image_ids', 'boxes', 'meta'])
def test_proposal_file_refuses_object_arrays(canary, tmp_path, name):
    arrays = dict(image_ids=np.array([1]), offsets=np.array([0, 0]),
                  boxes=np.zeros((0, 4)), names=np.zeros(0, np.uint32),
                  meta=np.zeros(2, np.uint8))
    arrays[name] = np.array([Payload(canary)])
    np.savez(tmp_path / 'evil.npz', **arrays)
    with pytest.raises(ValueError, match=f'{name}.npy is not a plain array'):
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

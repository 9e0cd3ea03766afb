"""Replay files: write one in a training, then compute the losses again."""
import json

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from tiny import demo_config, error_of, run_tool, univip_config

from univip_mm.datasets import collate_views
from univip_mm.engine import recompute, replay
from univip_mm.registry import MODELS


@pytest.fixture
def cfg():
    cfg = demo_config()
    cfg.model.backbone.update(base_channels=8, stem_channels=8)
    cfg.model.neck.update(in_channels=64, hid_channels=32)
    cfg.model.head.predictor.hid_channels = 32
    return cfg


@pytest.fixture
def trained(cfg, univip_scope, tmp_path):
    """Return a replay file of a second batch, its losses and the model."""
    MessageHub.get_current_instance().update_info('max_iters', 10)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        for _ in range(2):
            state = replay.random_state(model.data_preprocessor)
            batch = dict(
                inputs=[torch.randint(0, 256, (4, 3, size, size),
                                      dtype=torch.uint8)
                        for size in [64, 64] + [32] * 4],
                data_samples=[
                    DataSample(metainfo=dict(img_path=f'{i}.jpg', img_id=i,
                                             num_proposed=3))
                    for i in range(4)
                ])
            terms = model(**model.data_preprocessor(batch, True), mode='loss')
    cfg.model.graph = 'inductor'  # a replay runs without it, on any device
    path = tmp_path / 'replay.pth'
    replay.save_replay(
        path, model, [(batch, state)], cfg, iteration=2, rank=0,
        precision='float32', found='loss_scene')
    return path, {k: v.item() for k, v in terms.items() if 'loss' in k}, model


def test_compute_equals_training_bit_for_bit(trained):
    path, terms, _ = trained
    torch.manual_seed(99)
    content = replay.load_replay(path)
    model = recompute.build_model(content)
    preprocessed = recompute.preprocess_batch(model, content['batches'][0])
    assert recompute.compute(model, preprocessed)['terms'] == terms
    # Twice: compute does not change the model.
    assert recompute.compute(model, preprocessed)['terms'] == terms
    assert replay.image_names(content['batches'][0]) == [
        f'{i}.jpg' for i in range(4)]


@pytest.mark.parametrize('decoded', [True, False])
def test_replay_keeps_images_that_the_device_cuts(cfg, univip_scope,
                                                  tmp_path, decoded):
    model = MODELS.build(cfg.model)
    state = replay.random_state(model.data_preprocessor)
    images = [torch.randint(0, 256, (50, 60 + i, 3), dtype=torch.uint8)
              for i in range(2)]
    if not decoded:
        images = [torch.from_numpy(cv2.imencode('.jpg', x.numpy())[1].ravel())
                  for x in images]
    boxes = torch.tensor([[0, 0, 40, 40, 64]] * 2 + [[5, 5, 30, 35, 32]] * 4)
    batch = collate_views([
        dict(inputs=[x, boxes], data_samples=DataSample(
            metainfo=dict(view_seed=7))) for x in images])
    expected = model.data_preprocessor(batch, True)['inputs']
    path = tmp_path / 'replay.pth'
    replay.save_replay(path, model, [(batch, state)], cfg, iteration=1, rank=0,
                       precision='float32', found='')
    found = recompute.preprocess_batch(
        model, replay.load_replay(path)['batches'][0])['inputs']
    assert len(found) == 6 and all(map(torch.equal, found, expected))


def test_preprocess_batch_restores_new_generator(cfg, univip_scope, tmp_path):
    model = MODELS.build(cfg.model)
    model.data_preprocessor.seed = 5
    state = replay.random_state(model.data_preprocessor)
    view = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    batch = dict(inputs=[view] * 6)
    expected = model.data_preprocessor(batch, True)['inputs']
    path = tmp_path / 'replay.pth'
    replay.save_replay(path, model, [(batch, state)], cfg, iteration=1, rank=0,
                       precision='float32', found='')
    content = replay.load_replay(path)
    found = recompute.preprocess_batch(
        recompute.build_model(content), content['batches'][0])['inputs']
    assert all(map(torch.equal, found, expected))


def test_compute_names_first_non_finite_layer(trained):
    path, _, model = trained
    content = replay.load_replay(path)
    content['model']['backbone.layer2.0.conv1.weight'][0] = float('nan')
    model = recompute.build_model(content)
    preprocessed = recompute.preprocess_batch(model, content['batches'][0])
    computed = recompute.compute(model, preprocessed)
    assert computed['first_layer'] == 'backbone.layer2.0.conv1'
    assert not recompute.is_finite(computed)


def test_tool_reports_finite_batch(trained, capsys):
    run_tool('replay_batch', trained[0])
    output = capsys.readouterr().out
    assert 'iteration 2, rank 0: loss_scene was not finite' in output
    assert 'all values are finite' in output and 'NOT FINITE' not in output


def test_tool_refuses_other_files(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    assert 'is not a replay file' in error_of('replay_batch',
                                              tmp_path / 'x.pth')
    assert 'no.pth' in error_of('replay_batch', tmp_path / 'no.pth')


def test_load_replay_refuses_newer_version(tmp_path):
    torch.save(dict(format=replay.FORMAT, version=99), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='update univip_mm'):
        replay.load_replay(tmp_path / 'x.pth')


def batch_of(samples):
    """Return a batch of two small images, and its random state."""
    views = [torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
             for _ in range(6)]
    return (dict(inputs=views, data_samples=samples),
            replay.random_state(torch.nn.Module()))


@pytest.fixture
def written(tmp_path):
    """Return a replay file of a layer, which load_replay accepts."""
    path = tmp_path / 'replay.pth'
    replay.save_replay(
        path, torch.nn.Linear(1, 1), [batch_of([
            DataSample(metainfo=dict(img_path='1.jpg'))])],
        Config(dict(model=3)), iteration=2, rank=0, precision='float32',
        found='loss')
    return path


@pytest.fixture
def small(tmp_path, univip_scope):
    """Return a replay file of a small UniVIP."""
    preprocessor = dict(type='UniVIPDataPreprocessor', mean=[0.], std=[1.])
    cfg = Config(dict(model=univip_config(
        4, 16, data_preprocessor=preprocessor)))
    model = MODELS.build(cfg.model)
    path = tmp_path / 'replay.pth'
    replay.save_replay(
        path, model, [batch_of([
            DataSample(metainfo=dict(img_path=f'{i}.jpg', num_proposed=3))
            for i in range(2)])], cfg, iteration=2, rank=0,
        precision='float32', found='loss')
    return path


def changed(path, change):
    """Change the content of a replay file."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return str(path)


huge = torch.zeros(1).expand(10**13)
WRONG = {
    'config': lambda x: x.update(config=3),
    'rank': lambda x: x.pop('rank'),
    'iteration': lambda x: x.update(iteration='2'),
    'precision': lambda x: x.update(precision='save'),
    'model': lambda x: x['model'].update(a=3),
    'model ': lambda x: x['model'].update(a=huge),
    'model  ': lambda x: x['model'].update({3: torch.ones(1)}),
    'model   ': lambda x: x['model'].update(a=torch.empty(9, device='meta')),
    'batches': lambda x: x.update(batches=dict(x['batches'][0])),
    'batch': lambda x: x['batches'][0].update(more=3),
    'batch ': lambda x: x['batches'].append(3),
    'data of a batch': lambda x: x['batches'][0]['data'].update(inputs=[huge]),
    'data of a batch ': lambda x: x['batches'][0].update(data=[]),
    'data_samples': lambda x: x['batches'][0]['data'].update(data_samples=3),
    'data_samples ': lambda x: x['batches'][0]['data']['data_samples'][0][
        'metainfo'].update(__class__=3),
    'data_samples  ': lambda x: x['batches'][0]['data']['data_samples'][0][
        'metainfo'].update(keys=3),
    'random state': lambda x: x['batches'][0]['random'].pop('cpu'),
    'random state ': lambda x: x['batches'][0]['random']['generators'].update(
        _generator=('cpu', 3)),
    'random state  ': lambda x: x['batches'][0]['random'][
        'generators'].update(_generator=('meta', torch.ones(2))),
}


@pytest.mark.parametrize('field', WRONG)
def test_load_replay_refuses_wrong_field(written, field):
    replay.load_replay(written)
    path = changed(written, WRONG[field])
    with pytest.raises(ValueError, match=f"replay.pth' has a wrong "
                       f'{field.strip()}: give'):
        replay.load_replay(path)


def set_config(**values):
    """Return a change of the model's config in a replay file."""

    def change(content):
        config = json.loads(content['config'])
        config['model'].update(values)
        content['config'] = json.dumps(config)

    return change


UNFIT = {
    'has no model': lambda x: x.update(config='[' * 100_000),
    'config in the replay file has no': lambda x: x.update(config='{}'),
    'cannot be replayed: TypeError': set_config(type='UniVIP', odd=3),
    # A weight of 16 GB.
    'do not fit its config': set_config(
        fusion_neck=dict(type='UniVIPNeck', in_channels=60_000,
                         num_instances=4, out_channels=60_000)),
    'in_channels in the replay file is 1000000, above': set_config(
        fusion_neck=dict(type='UniVIPNeck', in_channels=10**6,
                         num_instances=4, out_channels=16)),
    'depth in the replay file is 20000, above 1000': set_config(
        backbone=dict(type='ResNet', depth=20_000)),
    'the first is': lambda x: x['model'].clear(),
    "a generator 'training'": lambda x: x['batches'][0]['random'][
        'generators'].update(training=('cpu', torch.get_rng_state())),
    'RNG state': lambda x: x['batches'][0]['random'].update(
        cpu=torch.zeros(9, dtype=torch.uint8)),
    'cannot be replayed': lambda x: x['batches'][0]['data'].update(
        inputs=[torch.zeros(2, 3, 9, 9, dtype=torch.uint8)]),
}


@pytest.mark.parametrize('words', UNFIT)
def test_tool_refuses_content_that_does_not_fit(small, words):
    path = changed(small, UNFIT[words])
    message = error_of('replay_batch', path)
    assert path in message and words in message


@MODELS.register_module(force=True)
class ComputingModel(torch.nn.Module):
    """Model that needs the values of its new weights."""

    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        assert self.weight.sum().item() == 2
        self.size = torch.ones(size)


def test_build_model_refuses_huge_numbers(univip_scope):
    content = dict(model=dict(weight=torch.ones(2)), config=json.dumps(
        dict(model=dict(type='ComputingModel', size=10**13))))
    with pytest.raises(ValueError, match='model.size .*10000000000000, above'):
        recompute.build_model(content)
    content['config'] = content['config'].replace('0' * 13, '0')
    assert recompute.build_model(content).size.shape == (10, )


def test_tool_escapes_names(small, capsys):
    path = changed(small, lambda x: [
        sample['metainfo'].update(img_path='a\x1b[2J\nb.jpg')
        for sample in x['batches'][0]['data']['data_samples']] + [
            x['model']['neck.fc0.weight'].fill_(float('nan')),
            x.update(found='\x1b[2J')])
    run_tool('replay_batch', path)
    output = capsys.readouterr().out
    assert '\x1b' not in output and r'\x1b[2J was not finite' in output


def test_save_replay_leaves_no_file_after_error(
        trained, cfg, tmp_path, monkeypatch):

    def fail(content, file):
        file.write(b'part')
        raise OSError('full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='full'):
        replay.save_replay(tmp_path / 'new' / 'x.pth', trained[2], [], cfg)
    assert list((tmp_path / 'new').iterdir()) == []

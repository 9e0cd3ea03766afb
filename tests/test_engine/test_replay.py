"""Replay files: write one in a training, then compute the losses again."""
import pytest
import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import DataSample
from tiny import demo_config, error_of, run_tool

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


def test_preprocess_batch_restores_new_generator(cfg, univip_scope, tmp_path):
    model = MODELS.build(cfg.model)
    model.data_preprocessor.seed = 5
    state = replay.random_state(model.data_preprocessor)
    view = torch.full((2, 3, 32, 32), 90, dtype=torch.uint8)
    batch = dict(inputs=[view] * 6)
    expected = model.data_preprocessor(batch, True)['inputs']
    path = tmp_path / 'replay.pth'
    replay.save_replay(path, model, [(batch, state)], cfg)
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


def test_save_replay_leaves_no_file_after_error(
        trained, cfg, tmp_path, monkeypatch):

    def fail(content, file):
        file.write(b'part')
        raise OSError('full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='full'):
        replay.save_replay(tmp_path / 'new' / 'x.pth', trained[2], [], cfg)
    assert list((tmp_path / 'new').iterdir()) == []

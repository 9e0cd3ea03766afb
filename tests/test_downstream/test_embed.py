import json
import subprocess
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from backbones import random_backbone, write_checkpoint
from image_bytes import encode, exif, photograph
from PIL import Image, ImageOps
from tiny import error_of, run_tool
from torchvision import transforms
from warm_python import warm_python

from univip_mm.downstream import embed_parts
from univip_mm.downstream.embed import embed
from univip_mm.downstream.network import FeatureNetwork

RESNET = dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
OPTIONS = dict(size=32, batch_size=2, device='cpu', workers=1)


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    """Return a folder with images of several formats and sizes."""
    folder = tmp_path_factory.mktemp('photographs')
    (folder / 'below').mkdir()
    files = {
        'a.jpg': encode(), 'b.png': encode('PNG'),
        'below/c.jpg': encode(exif=exif(6)),
        'below/d.png': encode('PNG', image=photograph(5, 300)),
        'gray.jpg': encode(mode='L', image=photograph(37, 37))}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope='module')
def narrow(tmp_path_factory):
    """Return a checkpoint of a tiny ResNet."""
    path = tmp_path_factory.mktemp('narrow') / 'epoch_1.pth'
    return write_checkpoint(random_backbone(RESNET), path, RESNET)


def read(path):
    with np.load(path) as content:
        return content['features'], content['files'].tolist()


def test_embed_matches_torchvision(photographs, tmp_path):
    backbone = random_backbone(dict(type='ResNet', depth=18))
    path = write_checkpoint(backbone, tmp_path / 'epoch_1.pth')
    out = tmp_path / 'x.npz'
    done = embed(path, photographs, out, **dict(OPTIONS, size=64, workers=2))
    features, files = read(out)
    assert files == ['a.jpg', 'b.png', 'below/c.jpg', 'below/d.png',
                     'gray.jpg']
    assert done == (str(out), 5, 512, 0) and features.dtype == np.float32
    network = torchvision.models.resnet18()
    network.load_state_dict(backbone.state_dict(), strict=False)
    network.eval().fc = torch.nn.Identity()
    transform = transforms.Compose([
        transforms.Resize(73), transforms.CenterCrop(64),
        transforms.ToTensor(), transforms.Normalize(
            [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    for feature, file in zip(features, files):
        if file == 'below/d.png':  # long images are cut before the resize
            continue
        image = ImageOps.exif_transpose(Image.open(photographs / file))
        with torch.no_grad():
            expected = network(transform(image.convert('RGB'))[None])[0]
        torch.testing.assert_close(
            torch.tensor(feature), expected, rtol=1e-4, atol=1e-4)


def test_embed_formats_have_the_same_features(photographs, narrow, tmp_path,
                                              capsys):
    pytest.importorskip('pyarrow')
    expected = None
    for suffix in ('npz', 'csv', 'parquet'):
        out = tmp_path / f'features.{suffix}'
        run_tool('embed', narrow, photographs, '--out', out, '--size', 32,
                 '--workers', 1, '--device', 'cpu')
        text = capsys.readouterr().out
        assert f'5 images x 64 numbers, online branch, written to {out}' in (
            text)
        names = {}
        exec(text.partition('\n\n')[2], names)
        nearest = capsys.readouterr().out
        assert "'a.jpg'" in nearest.split()[0] and "'b.png'" in nearest
        assert names['x'].shape == (5, 64)
        expected = names['x'] if expected is None else expected
        assert np.array_equal(names['x'], expected)
        assert names['files'][2] == 'below/c.jpg'


def test_embed_reads_archives_and_jsons(photographs, narrow, tmp_path):
    embed(narrow, photographs, tmp_path / 'x.npz', **OPTIONS)
    expected, names = read(tmp_path / 'x.npz')
    with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
        for name in names:
            archive.write(photographs / name, name)
    embed(narrow, tmp_path / 'x.zip', tmp_path / 'x.npz', **OPTIONS)
    assert np.array_equal(read(tmp_path / 'x.npz')[0], expected)
    images = [dict(id=7, file_name=names[2]), dict(id=3, file_name=names[0])]
    (tmp_path / 'x.json').write_text(json.dumps(dict(images=images)))
    for data in ((tmp_path / 'x.json', photographs),
                 f'{tmp_path}/x.json:{photographs}'):
        embed(narrow, data, tmp_path / 'x.npz', **OPTIONS)
        features, files = read(tmp_path / 'x.npz')
        assert files == [names[2], names[0]]
        torch.testing.assert_close(torch.tensor(features),
                                   torch.tensor(expected[[2, 0]]))


def test_embed_lists_unreadable_images(photographs, narrow, tmp_path, caplog):
    folder = tmp_path / 'bad'
    folder.mkdir()
    data = (photographs / 'a.jpg').read_bytes()
    (folder / 'a.jpg').write_bytes(data)
    (folder / 'b\n.jpg').write_bytes(data[:len(data) // 2])
    (folder / 'c.jpg').write_bytes(b'')
    out = tmp_path / 'x.npz'
    done = embed(narrow, folder, out, **OPTIONS)
    assert (done.images, done.unreadable) == (1, 2)
    assert read(out)[1] == ['a.jpg']
    listing = tmp_path / 'x.npz.unreadable.txt'
    assert listing.read_text() == (
        'b\\n.jpg\tthe file ends before the image does\n'
        'c.jpg\tthe file is empty\n')
    assert '2 of 3 images are unreadable' in caplog.text
    embed(narrow, photographs, out, **OPTIONS)
    assert not listing.exists()
    (folder / 'a.jpg').unlink()
    with pytest.raises(ValueError, match='none of the 2 images is readable'):
        embed(narrow, folder, out, **OPTIONS)


def test_embed_resumes_after_a_stop(photographs, narrow, tmp_path,
                                    monkeypatch):
    monkeypatch.setattr(embed_parts, 'PART', 2)
    out, other = tmp_path / 'x.npz', tmp_path / 'whole.npz'
    embed(narrow, photographs, other, **OPTIONS)
    calls = []
    forward = FeatureNetwork.forward

    def stop_at_third(self, images):
        calls.append(len(images))
        if len(calls) == 4:  # the first call has a test image
            raise KeyboardInterrupt
        return forward(self, images)

    monkeypatch.setattr(FeatureNetwork, 'forward', stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        embed(narrow, photographs, out, **OPTIONS)
    assert calls == [1, 2, 2, 1] and not out.exists()
    embed(narrow, photographs, out, **OPTIONS)
    assert calls[4:] == [1, 1]  # the test image and the last image
    assert np.array_equal(read(out)[0], read(other)[0])
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        'whole.npz', 'x.npz']


def test_embed_needs_few_open_files(photographs, narrow, tmp_path):
    folder = tmp_path / 'many'
    folder.mkdir()
    data = (photographs / 'gray.jpg').read_bytes()
    for number in range(200):
        (folder / f'{number}.png').write_bytes(data)
    script = tmp_path / 'limited.py'
    script.write_text(
        'import resource\n'
        'from univip_mm.downstream.embed import embed\n'
        'resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))\n'
        f'embed({str(narrow)!r}, {str(folder)!r}, "x.npz", size=32,\n'
        '      batch_size=100, device="cpu", workers=2)\n')
    done = subprocess.run([warm_python(), script], cwd=tmp_path, timeout=120,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    features, files = read(tmp_path / 'x.npz')
    assert len(files) == 200 and (features == features[0]).all()


def test_embed_does_not_mix_runs(photographs, narrow, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_parts, 'PART', 2)
    out, folder = tmp_path / 'x.npz', tmp_path / 'x.npz.parts'
    with monkeypatch.context() as patch:
        patch.setattr(embed_parts.Parts, 'remove', lambda self: None)
        embed(narrow, photographs, out, **OPTIONS)
    # Of the parts, one is damaged, and the branch is another one.
    (folder / '000000.npz').write_bytes(b'damaged')
    embed(narrow, photographs, out, **OPTIONS, branch='target')
    assert not read(out)[0].any() and not folder.exists()


def test_embed_uses_normalization_of_training(photographs, tmp_path):
    weights = random_backbone(RESNET)
    swapped = random_backbone(RESNET)
    swapped.load_state_dict(weights.state_dict())
    with torch.no_grad():
        swapped.conv1.weight.copy_(weights.conv1.weight.flip(1))
    found = []
    for number, (backbone, options) in enumerate([
            (weights, dict(mean=[1, 2, 3], std=[4, 5, 6], to_rgb=True)),
            (swapped, dict(mean=[3, 2, 1], std=[6, 5, 4], to_rgb=False))]):
        path = write_checkpoint(backbone, tmp_path / f'{number}.pth', RESNET,
                                data_preprocessor=options)
        embed(path, photographs, tmp_path / 'x.npz', **OPTIONS)
        found.append(torch.tensor(read(tmp_path / 'x.npz')[0]))
    torch.testing.assert_close(*found)


# Mistakes of the user.

@pytest.mark.parametrize('options, words', [
    (dict(out='x.txt'), 'end in .npz, .csv, .parquet'),
    (dict(batch_size=0), 'batch_size is 0'),
    (dict(workers=0), 'workers is 0'),
    (dict(device='tpu'), "device 'tpu' cannot be used"),
    (dict(data='nothing here'), "no folder 'nothing here'"),
    (dict(source='no.pth'), "no checkpoint 'no.pth'"),
    (dict(branch='middle'), 'online, target'),
])
def test_embed_names_wrong_argument(photographs, narrow, tmp_path, options,
                                    words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = dict(OPTIONS, source=narrow, data=photographs, out='x.npz')
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        embed(**dict(arguments, **options))


def test_embed_asks_for_config_of_unknown_network(photographs, tmp_path):
    config = dict(type='MobileNetV2', widen_factor=0.1)
    path = write_checkpoint(random_backbone(config), tmp_path / 'a.pth')
    out = tmp_path / 'x.npz'
    message = error_of('embed', path, photographs, '--out', out)
    assert "network of" in message and '--config' in message
    (tmp_path / 'config.py').write_text(
        f'model = dict(type="UniVIP", backbone={config!r})')
    done = embed(path, photographs, out, config=tmp_path / 'config.py',
                 **OPTIONS)
    assert done.channels == 1280


def test_embed_refuses_broken_weights(photographs, tmp_path):
    backbone = random_backbone(RESNET)
    torch.nn.init.constant_(backbone.layer4[1].bn2.weight, float('nan'))
    path = write_checkpoint(backbone, tmp_path / 'a.pth', RESNET)
    with pytest.raises(ValueError, match='not finite'):
        embed(path, photographs, tmp_path / 'x.npz', **OPTIONS)

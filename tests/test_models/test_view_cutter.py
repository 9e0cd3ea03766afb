import importlib
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from univip_mm.models import view_cutter
from univip_mm.models.view_cutter import cut_batch, cut_views


def table_row(image, box):
    return [0, image.shape[1] * 3, 3, 1, *box]


def opencv(image, box, size):
    x1, y1, x2, y2 = box
    view = cv2.resize(image[y1:y2, x1:x2], (size, size),
                      interpolation=cv2.INTER_CUBIC)
    return view.transpose(2, 0, 1)


def noise(height=90, width=120):
    return np.random.default_rng(0).integers(
        0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize('box', [
    (0, 0, 120, 90), (10, 5, 74, 69), (3, 80, 120, 90), (50, 0, 58, 90),
    (7, 7, 15, 15), (0, 0, 9, 8)])
@pytest.mark.parametrize('size', [96, 33])
def test_cut_views_matches_opencv(box, size):
    # Noise differs more often than photographs.
    image = noise()
    ours = cut_views(torch.from_numpy(image).flatten(),
                     torch.tensor([table_row(image, box)]), size)[0].numpy()
    gap = np.abs(ours.astype(int) - opencv(image, box, size))
    assert gap.max() <= 1 and (gap > 0).mean() < 1e-3


def test_cut_views_reads_planar_rgb():
    image = noise()
    planar = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
    boxes = [(0, 0, 120, 90), (20, 30, 90, 80)]
    expected = cut_views(
        torch.from_numpy(image).flatten(),
        torch.tensor([table_row(image, box) for box in boxes]), 40)
    table = [[2 * 90 * 120, 120, 1, -90 * 120, *box] for box in boxes]
    assert torch.equal(
        cut_views(planar.flatten(), torch.tensor(table), 40), expected)


def test_chunks_do_not_change_the_views(monkeypatch):
    image = noise()
    table = torch.tensor([[
        table_row(image, (0, 0, 100 + i, 90)), table_row(
            image, (i, 0, 70, 60)), table_row(image, (5, i, 80, 80))]
        for i in range(4)])
    batch = torch.from_numpy(image).flatten(), table, [32, 16, 16]
    whole = cut_batch(*batch)
    assert [x.shape for x in whole] == [
        (4, 3, 32, 32), (4, 3, 16, 16), (4, 3, 16, 16)]
    monkeypatch.setattr(view_cutter, '_CHUNK_VALUES', dict(cpu=1))
    assert all(map(torch.equal, whole, cut_batch(*batch)))
    gap = whole[2][3].int().numpy() - opencv(image, (5, 3, 80, 80), 16)
    assert abs(gap).max() <= 1


# As in test_sinkhorn_solver: Triton's interpreter is chosen at its import.
INTERPRET = """
import importlib.util, sys
import torch
spec = importlib.util.spec_from_file_location('kernel', sys.argv[1])
kernel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernel)
pixels, table, size = torch.load(sys.argv[2])
torch.save(kernel.cut(pixels, table, size), sys.argv[3])
"""


def test_kernel_matches_pytorch_in_interpreter(tmp_path):
    pytest.importorskip('triton')
    image = noise()
    planar = image[..., ::-1].transpose(2, 0, 1)
    pixels = torch.from_numpy(np.concatenate([image.ravel(), planar.ravel()]))
    boxes = [(0, 0, 120, 90), (7, 7, 15, 15), (3, 80, 120, 90)]
    table = torch.tensor(
        [table_row(image, box) for box in boxes]
        + [[image.size + 2 * 90 * 120, 120, 1, -90 * 120, *boxes[0]]])
    torch.save((pixels, table, 17), tmp_path / 'batch.pth')
    subprocess.run(
        [sys.executable, '-c', INTERPRET,
         view_cutter.__file__.replace('.py', '_triton.py'),
         tmp_path / 'batch.pth', tmp_path / 'views.pth'],
        env=dict(os.environ, TRITON_INTERPRET='1'), check=True)
    views = torch.load(tmp_path / 'views.pth')
    gap = (views.int() - cut_views(pixels, table, 17).int()).abs()
    assert gap.max() <= 1 and (gap > 0).float().mean() < 1e-3
    assert torch.equal(views[0], views[3])
    assert abs(views[1].int().numpy() - opencv(image, boxes[1], 17)).max() <= 1


def test_kernel_compiles_for_a_gpu(tmp_path, monkeypatch):
    triton = pytest.importorskip('triton', minversion='3.3')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    compiler = importlib.import_module('triton.backends.compiler')
    kernel = importlib.import_module(
        'univip_mm.models.view_cutter_triton')._cut_kernel
    source = triton.compiler.ASTSource(
        kernel, constexprs=dict(SIZE=96, BLOCK=256), signature=dict(
            pixels='*u8', table='*i64', views='*u8', SIZE='constexpr',
            BLOCK='constexpr'))
    assert triton.compile(source, target=compiler.GPUTarget('cuda', 90, 32),
                          options=dict(num_warps=4)).asm['ptx']


def test_cutter_without_kernel_warns_once(monkeypatch, logged):
    monkeypatch.setattr(view_cutter, '_kernel_failed', False)
    monkeypatch.setitem(
        sys.modules, 'univip_mm.models.view_cutter_triton', None)
    batch = torch.from_numpy(noise()).flatten(), torch.tensor(
        [table_row(noise(), (0, 0, 50, 50))]), 32
    for _ in range(2):
        assert view_cutter._cut_by_kernel(*batch) is None
    assert len(logged) == 1 and 'gcc' in logged[0]

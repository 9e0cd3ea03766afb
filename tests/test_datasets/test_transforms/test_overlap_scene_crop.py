import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univip_mm.datasets import OverlapSceneCrop
from univip_mm.io.boxes import filter_boxes, iou
from univip_mm.registry import TRANSFORMS


def coordinates(width, height):
    """An image whose pixels store their own coordinates, 12 bits each.

    B and the low half of G store x, R and the high half of G store y.
    """
    y, x = np.mgrid[:height, :width]
    return np.stack([x & 255, (x >> 8) | (y >> 8) << 4, y & 255],
                    axis=2).astype(np.uint8)


def read_coordinates(pixels):
    b, g, r = (pixels[..., c].astype(int) for c in range(3))
    return b | (g & 15) << 8, r | (g >> 4) << 8


def random_boxes(rng, number, width, height):
    x = np.sort(rng.integers(0, width + 1, (number, 2)), axis=1)
    y = np.sort(rng.integers(0, height + 1, (number, 2)), axis=1)
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).astype(np.float32)


def run(transform, image, proposals):
    return transform(dict(img=image, proposals=proposals))


def inside(inner, outer):
    return (inner[..., :2] >= outer[..., :2]).all() and (
        inner[..., 2:] <= outer[..., 2:]).all()


@settings(max_examples=300)
@given(
    width=st.integers(1, 2000) | st.integers(1, 130),
    height=st.integers(1, 130),
    swapped=st.booleans(),
    number=st.integers(0, 300),
    filtered=st.booleans(),
    k=st.integers(1, 6),
    selection=st.sampled_from(['first', 'random']),
    seed=st.integers(0, 2**32 - 1))
def test_boxes_obey_rules_for_any_input(
        width, height, swapped, number, filtered, k, selection, seed):
    if swapped:
        width, height = height, width
    np.random.seed(seed)
    transform = OverlapSceneCrop(
        num_instances=k, scene_size=8, instance_size=4, selection=selection,
        backend='cv2')
    rules = transform.rules
    proposals = random_boxes(np.random.default_rng(seed), number, width,
                             height)
    if filtered:
        proposals = filter_boxes(proposals, rules)
    image = np.zeros((height, width, 3), np.uint8)
    out = run(transform, image, proposals)

    whole = np.array([0, 0, width, height])
    scenes, overlap = out['scene_boxes'], out['overlap_box']
    instances, proposed = out['instance_boxes'], out['num_proposed']
    assert scenes.shape == (2, 4) and overlap.shape == (4, )
    assert instances.shape == (k, 4)
    assert [v.shape for v in out['img']] == [(8, 8, 3)] * 2 + [(4, 4, 3)] * k
    for boxes in (scenes, overlap[None], instances):
        assert (boxes[:, 2:] > boxes[:, :2]).all() and inside(boxes, whole)
    assert overlap.tolist() == [*scenes[:, :2].max(0), *scenes[:, 2:].min(0)]
    assert inside(instances, overlap)
    # The overlap has the smallest allowed size, or is the whole image.
    overlap_sides = overlap[2:] - overlap[:2]
    assert (overlap_sides >= rules.min_size).all() or (
        scenes == whole).all()

    # The instances obey the rules. In an overlap too small for the rules, the
    # random boxes are as large as possible.
    sides = instances[:, 2:] - instances[:, :2]
    assert (sides.max(1) <= rules.max_aspect_ratio * sides.min(1)).all()
    limit = np.minimum(rules.min_size, overlap_sides)
    limit = np.minimum(limit, rules.max_aspect_ratio * limit.min())
    assert (sides >= np.floor(limit)).all()
    assert (sides[:proposed] >= rules.min_size).all()
    given_boxes = {tuple(box) for box in proposals.astype(int).tolist()}
    assert {tuple(box) for box in instances[:proposed].tolist()} <= given_boxes
    for i in range(1, proposed):
        assert iou(instances[i:i + 1], instances[:i]).max() <= rules.iou_thr
    if filtered and proposed < k:  # all contained proposals are used
        contained = [p for p in proposals if inside(p, overlap)]
        assert len(contained) == proposed


@settings(max_examples=60)
@given(
    width=st.integers(64, 700),
    height=st.integers(64, 700),
    seed=st.integers(0, 2**32 - 1))
def test_views_show_pixels_of_their_boxes(width, height, seed):
    np.random.seed(seed)
    image = coordinates(width, height)
    proposals = random_boxes(np.random.default_rng(seed), 50, width, height)
    transform = OverlapSceneCrop(
        num_instances=3, scene_size=32, instance_size=16,
        interpolation='nearest')
    out = run(transform, image, proposals)
    boxes = np.concatenate([out['scene_boxes'], out['instance_boxes']])
    for view, (x1, y1, x2, y2) in zip(out['img'], boxes):
        size = len(view)
        x, y = read_coordinates(view)
        # Nearest interpolation reads the first pixel of each cell. At an
        # integer position, OpenCV may read the pixel before.
        step = np.arange(size) / size
        for pixels, low, high in ((x, x1, x2), (y.T, y1, y2)):
            gap = low + np.floor(step * (high - low)) - pixels
            assert set(np.unique(gap)) <= {0, 1}
            assert (pixels >= low).all() and (pixels < high).all()
            assert (gap[:, 0] == 0).all()


def test_resize_is_bicubic_in_each_backend():
    import cv2
    from PIL import Image
    np.random.seed(0)
    image = np.random.randint(0, 256, (300, 400, 3), np.uint8)
    for backend in ('cv2', 'pillow'):
        out = run(OverlapSceneCrop(backend=backend), image,
                  np.zeros((0, 4), np.float32))
        x1, y1, x2, y2 = out['scene_boxes'][0]
        crop = image[y1:y2, x1:x2]
        expected = dict(
            cv2=lambda c: cv2.resize(c, (224, 224),
                                     interpolation=cv2.INTER_CUBIC),
            pillow=lambda c: np.array(
                Image.fromarray(c).resize((224, 224), Image.BICUBIC)),
        )[backend](crop)
        assert np.array_equal(out['img'][0], expected)


def test_selection_first_and_random():
    grid = np.array([[x, y, x + 64, y + 64] for y in (0, 64, 128)
                     for x in (0, 64, 128)], np.float32)
    image = np.zeros((192, 192, 3), np.uint8)
    whole = dict(crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1))
    first = run(OverlapSceneCrop(**whole), image, grid)
    assert first['instance_boxes'].tolist() == grid[:4].tolist()
    assert first['num_proposed'] == 4
    np.random.seed(0)
    picks = {
        tuple(box)
        for _ in range(50) for box in run(
            OverlapSceneCrop(selection='random', **whole), image,
            grid)['instance_boxes'].tolist()
    }
    assert len(picks) == 9


def test_random_boxes_obey_iou_rule():
    np.random.seed(0)
    image = np.zeros((480, 640, 3), np.uint8)
    for _ in range(50):
        out = run(OverlapSceneCrop(), image, np.zeros((0, 4), np.float32))
        assert out['num_proposed'] == 0
        overlap = out['overlap_box'][2:] - out['overlap_box'][:2]
        largest = [iou(b[None], out['instance_boxes'][:i]).max()
                   for i, b in enumerate(out['instance_boxes']) if i]
        if min(overlap) > 200:  # large enough for four
            assert max(largest) <= 0.5


def test_views_depend_on_view_seed_only():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (300, 400, 3), np.uint8)
    proposals = random_boxes(rng, 30, 400, 300)

    def crop(seed):
        return OverlapSceneCrop(selection='random')(
            dict(img=image, proposals=proposals, view_seed=seed))

    np.random.seed(0)
    first, other = crop(11), crop(12)
    np.random.seed(1)
    again = crop(11)
    for name in ('scene_boxes', 'instance_boxes'):
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert all(map(np.array_equal, first['img'], again['img']))


def test_views_are_packed_without_copy():
    out = run(OverlapSceneCrop(), np.zeros((300, 400, 3), np.uint8),
              np.zeros((0, 4), np.float32))
    packed = TRANSFORMS.build(dict(type='PackInputs'))(out)
    for view, tensor in zip(out['img'], packed['inputs']):
        assert tensor.shape == (3, *view.shape[:2])
        assert np.shares_memory(tensor.numpy(), view)


def test_invalid_proposals_are_ignored():
    bad = np.array([[np.nan, 0, 100, 100], [-5, 0, 90, 90], [0, 0, np.inf, 9],
                    [90, 90, 10, 10], [0, 0, 900, 900]], np.float32)
    out = run(OverlapSceneCrop(), np.zeros((200, 200, 3), np.uint8), bad)
    assert out['num_proposed'] == 0


def test_missing_proposals_raise():
    transform = TRANSFORMS.build(dict(type='univip_mm.OverlapSceneCrop'))
    with pytest.raises(KeyError, match='ProposalCocoDataset'):
        transform(dict(img=np.zeros((100, 100, 3), np.uint8)))


@pytest.mark.parametrize('options, named', [
    (dict(num_instances=0), 'num_instances'),
    (dict(max_attempts=0), 'max_attempts'),
    (dict(selection='last'), 'selection'),
    (dict(crop_ratio_range=(0, 1)), 'crop_ratio_range'),
    (dict(min_size=0), 'min_size')])
def test_options_out_of_range_raise(options, named):
    with pytest.raises(ValueError, match=named):
        OverlapSceneCrop(**options)

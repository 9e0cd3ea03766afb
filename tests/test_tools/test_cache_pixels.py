import pytest
from tiny import error_of, run_tool


def options(folder, **changes):
    values = {'ann-file': folder / 'train.json',
              'img-prefix': folder / 'images', 'out': folder / 'out.pixels',
              'workers': 1, **changes}
    return [str(x) for name, value in values.items()
            for x in (f'--{name}', value)]


def test_summary_has_numbers_and_unreadable_images(coco_folder, capsys):
    (coco_folder / 'images/3.jpg').write_bytes(b'\xff\xd8\xff')
    run_tool('cache_pixels', *options(coco_folder))
    text = capsys.readouterr().out
    assert 'decoded 7 images' in text
    assert 'not cached: 3.jpg: not an image' in text
    assert '7 of 8 images (87.5%), 0.7 MB' in text
    run_tool('cache_pixels', *options(coco_folder))
    text = capsys.readouterr().out
    assert 'nothing to decode' in text and 'not in the cache: 1 of 8' in text


@pytest.mark.parametrize('changes, message', [
    ({'max-gb': 0}, '--max-gb is 0.0, but must be a positive number'),
    ({'max-gb': 'inf'}, 'must be a positive number'),
    ({'max-gb': 0.00001}, 'allows 0.0 MB, less than the pixels'),
    ({'img-prefix': 'nowhere'}, "'nowhere' does not exist, check"),
    ({'img-prefix': 's3://bucket'}, '--img-prefix is the URL'),
    ({'workers': 0}, 'workers is 0'),
])
def test_wrong_option_is_reported(coco_folder, changes, message):
    assert message in error_of('cache_pixels',
                               *options(coco_folder, **changes))
    assert not (coco_folder / 'out.pixels').exists()

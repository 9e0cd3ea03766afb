from univip_mm.downstream.set_split import SetSplit


def test_set_split_writes_split():
    sample = dict(img_path='a.jpg')
    assert SetSplit('val')(sample) == dict(img_path='a.jpg', split='val')

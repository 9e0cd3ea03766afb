# COCO multi-label classification: k-NN and linear classifiers on frozen
# features, fitted on train2017, scored on val2017. Not a benchmark of the
# literature; needs only the data of the pre-training.
# Trains nothing by gradient descent: run
# tools/benchmarks/classification/dist_test.sh.
_base_ = './knn_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='univip_mm.CocoMultiLabel',
                data_root='data/coco/',
                ann_file=f'annotations/instances_{split}2017.json',
                data_prefix=dict(img_path=f'{split}2017/'),
                split=split,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(
                        type='ResizeEdge',
                        scale=256,
                        edge='short',
                        backend='pillow'),
                    dict(type='CenterCrop', crop_size=224),
                    dict(type='PackInputs', meta_keys=('img_path', 'split')),
                ]) for split in ('train', 'val')
        ]))
test_evaluator = dict(_delete_=True, type='univip_mm.MultiLabelProbe')

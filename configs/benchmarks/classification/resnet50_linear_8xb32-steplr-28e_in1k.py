# ImageNet, one linear classifier on the last stage of the frozen backbone: the
# same as in resnet50_mhead_8xb32-steplr-28e_in1k.py, whose classifiers do not
# know of each other, without the other four.
_base_ = './resnet50_mhead_8xb32-steplr-28e_in1k.py'

model = dict(head=dict(stages=(4, )))
val_evaluator = dict(
    _delete_=True,
    type='MultiTasksMetric',
    task_metrics=dict(stage4=[dict(type='Accuracy', topk=(1, 5))]))
test_evaluator = val_evaluator

# ImageNet: one linear classifier on the last stage of the frozen backbone.
# Equals stage 4 of resnet50_mhead_8xb32-steplr-28e_in1k.py, whose classifiers
# are independent.
_base_ = './resnet50_mhead_8xb32-steplr-28e_in1k.py'

model = dict(head=dict(stages=(4, )))
val_evaluator = dict(
    _delete_=True,
    type='MultiTasksMetric',
    task_metrics=dict(stage4=[dict(type='Accuracy', topk=(1, 5))]))
test_evaluator = val_evaluator

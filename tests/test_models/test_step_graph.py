import copy
import pickle

import pytest
import torch
from mmengine.logging import MessageHub
from tiny import univip_config

from univip_mm.models import step_graph
from univip_mm.models.step_graph import GraphError, check_mode
from univip_mm.registry import MODELS

pytestmark = pytest.mark.skipif(
    not hasattr(torch, 'get_autocast_dtype'), reason='needs PyTorch 2.4')
K, C = 3, 8
RESNET_50 = dict(type='ResNet', depth=50, base_channels=4, stem_channels=4,
                 norm_cfg=dict(type='BN'))
# All layers run the same code, so two of the twelve are enough.
VIT_SMALL = dict(
    type='VisionTransformer', img_size=32, patch_size=16, out_type='featmap',
    arch=dict(embed_dims=384, num_layers=2, num_heads=6,
              feedforward_channels=1536),
    interpolate_mode='bicubic')


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build(**changes):
    torch.manual_seed(0)
    MessageHub.get_current_instance().update_info('max_iters', 10)
    return MODELS.build(univip_config(K, C, **changes)).train()


def views(seed=0, batch=4, instance=16):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, size, size, generator=generator)
            for size in [32, 32] + [instance] * K]


@pytest.fixture
def without_gpu(monkeypatch):
    """Let the capture run on the CPU, where a replay calls the function."""
    monkeypatch.setattr(torch.cuda, 'make_graphed_callables',
                        lambda function, *_, **__: function)
    monkeypatch.setattr(step_graph, 'check_mode', lambda mode: None)


def train(model, batches_per_step=2):
    """Train four steps of accumulated gradients; return all losses."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model.steps_since_update = 1
    values = []
    for seed in range(4 * batches_per_step):
        out = model.loss(views(seed))
        model.parse_losses(out)[0].backward()
        values.append({name: x.item() for name, x in out.items()})
        if (seed + 1) % batches_per_step == 0:
            optimizer.step()
            optimizer.zero_grad()
            model.steps_since_update += 1
    return values


def test_graph_matches_eager_bit_for_bit():
    eager, graph = build(), build(graph='aot_eager')
    # The target moves with every second batch.
    assert train(graph) == train(eager)
    for (name, a), b in zip(graph.state_dict().items(),
                            eager.state_dict().values()):
        assert torch.equal(a, b), name


def test_capture_allows_gpu_work_of_other_threads(monkeypatch, without_gpu):
    graph, options = torch.cuda.graph, []

    def capture(function, tensors, **_):
        options.append(torch.cuda.graph.keywords)
        return function

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', capture)
    build(graph='cuda_graph').loss(views())
    assert options == [dict(capture_error_mode='thread_local')]
    assert torch.cuda.graph is graph


def test_capture_uses_no_random_numbers(monkeypatch, without_gpu):
    def capture(function, tensors, **_):
        function(*tensors)  # the trial passes
        return function

    class Noisy(type(build().fusion_neck)):

        def forward(self, x):
            return super().forward((torch.nn.functional.dropout(x[0]), ))

    monkeypatch.setattr(torch.cuda, 'make_graphed_callables', capture)
    found = []
    for graph in (None, 'cuda_graph'):
        model = build(graph=graph)
        model.fusion_neck.__class__ = Noisy
        torch.manual_seed(0)
        found.append(model.loss(views())['loss_scene_instance'].item())
    assert found[0] == found[1]


def test_captured_losses_match_eager(without_gpu):
    eager, graph = build(), build(graph='cuda_graph')
    parameters = dict(graph.named_parameters())
    assert train(graph) == train(eager)
    for name, parameter in graph.named_parameters():
        assert parameters[name] is parameter  # as the optimizer has it
    log_vars = graph.loss(views())
    assert not log_vars['projection_std'].requires_grad


def test_capture_uses_aliases_of_the_parameters(monkeypatch, without_gpu):
    model = build(graph='cuda_graph')
    used = []
    monkeypatch.setattr(
        torch.cuda, 'make_graphed_callables',
        lambda function, sample, **_: used.append(sample) or function)
    model.loss(views())
    momentum, *tensors = used[0]
    assert momentum == 0
    by_memory = {x.data_ptr(): x for x in tensors if x.requires_grad}
    for parameter in model.parameters():
        if parameter.requires_grad:
            alias = by_memory.pop(parameter.data_ptr())
            assert alias is not parameter
    assert not by_memory


@pytest.mark.parametrize('backbone, channels', [
    (RESNET_50, 128), (VIT_SMALL, 384)], ids=['resnet50', 'vit_small'])
def test_losses_trace_without_graph_break(backbone, channels):
    cfg = univip_config(K, C)
    cfg['backbone'] = backbone
    cfg['neck'].update(in_channels=channels)
    model = MODELS.build(cfg).train()
    # ResNet-18: test_graph_matches_eager_bit_for_bit allows no break.
    size = 32 if backbone is VIT_SMALL else 16  # at least two patches
    found = torch._dynamo.explain(model.losses)(
        views(instance=size), torch.tensor(0.1))
    assert (found.graph_count, found.graph_break_count) == (1, 0)


def test_graph_is_not_part_of_copies_and_checkpoints(without_gpu):
    model = build(graph='cuda_graph')
    model.loss(views())
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.graph == 'cuda_graph'
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        # Zero weights give zero features, and all losses are zero.
        assert other.loss(views())['loss_scene'] == 0
    assert model.loss(views())['loss_scene'] != 0
    assert model.state_dict().keys() == build().state_dict().keys()


def test_replay_leaves_accumulated_gradients_alone(without_gpu):
    model = build(graph='cuda_graph')
    sum(model.loss(views())[name] for name in (
        'loss_scene', 'loss_instance')).backward()
    # The next replay writes its gradients to this memory.
    replayed = model.backbone.conv1.weight.grad
    expected = replayed.clone()
    model.loss(views())
    replayed.zero_()
    assert torch.equal(model.backbone.conv1.weight.grad, expected)


def test_graph_logs_that_it_is_built_once(without_gpu, monkeypatch):
    lines = []
    monkeypatch.setattr(step_graph, 'print_log',
                        lambda text, logger: lines.append(text))
    model = build(graph='cuda_graph')
    model.loss(views())
    model.loss(views())
    assert len(lines) == 1
    assert lines[0].startswith("model.graph='cuda_graph': built in ")


def test_graph_refuses_a_smaller_batch(without_gpu):
    model = build(graph='cuda_graph')
    model.loss(views())
    with pytest.raises(GraphError, match='drop_last=True'):
        model.loss(views(batch=3))


@pytest.mark.parametrize('change', [
    lambda x: x.requires_grad_(False),
    lambda x: setattr(x, 'data', x.data.clone())], ids=['freeze', 'move'])
def test_graph_refuses_changed_weights(change, without_gpu):
    model = build(graph='cuda_graph')
    model.loss(views())
    change(model.neck.fc0.weight)
    with pytest.raises(GraphError, match='set model.graph=None$'):
        model.loss(views())


def test_graph_error_names_the_cure():
    class Breaking(type(build().fusion_neck)):

        def forward(self, x):
            if x[0].sum().item() > 0:  # a host read
                x = tuple(y + 1 for y in x)
            return super().forward(x)

    model = build(graph='eager')
    model.fusion_neck.__class__ = Breaking
    with pytest.raises(GraphError, match='set model.graph=None$'):
        model.loss(views())


@pytest.mark.parametrize('mode, message', [
    ('fast', "must be None, 'cuda_graph', 'inductor'"),
    ('cuda_graph', 'needs a GPU'), ('inductor', 'needs a GPU')])
def test_check_mode_refuses(mode, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match=message):
        check_mode(mode)

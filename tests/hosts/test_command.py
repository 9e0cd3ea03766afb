"""The command ``univip`` of the wheel, outside of the repository."""
import pytest
from project import run

from univip_mm.utils.command import COMMANDS


def test_help_lists_the_commands(tmp_path):
    said = run(tmp_path, 'univip', '-h')
    for name, (_, summary) in COMMANDS.items():
        assert f'{name} ' in said and summary in said


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_shows_how_to_call_it(tmp_path, name):
    said = run(tmp_path, 'univip', name, '-h')
    assert said.startswith(f'usage: univip {name} ')
    assert f'  univip {name}' in said.partition('example')[2]


def test_pretrain_and_what_follows(project):
    small = [f'train_dataloader.dataset.pipeline.1.{name}_size=32'
             for name in ('scene', 'instance')]
    said = run(project, 'univip', 'pretrain', 'data/demo/train', '--out',
               'first', '--arch', 'resnet18', '--epochs', 1, '--devices',
               'cpu', '--set', *small, 'train_dataloader.num_workers=0',
               'train_dataloader.persistent_workers=False')
    assert 'torchvision.models.resnet18()' in said
    run(project, 'univip', 'export', 'first', '--format', 'torchvision')
    run(project, 'univip', 'embed', 'first', 'data/demo/val', '--out',
        'features.csv', '--size', 32, '--workers', 1)
    run(project, 'univip', 'report', 'first')
    assert len((project / 'features.csv').read_text().splitlines()) == 5
    for name in ('backbone.pth', 'backbone_torchvision.pth', 'report.html'):
        assert (project / 'first' / name).is_file()

import pytest
from project import HOST, make_project

collect_ignore = [] if HOST == 'mmselfsup' else ['test_both_hosts.py']


@pytest.fixture(scope='session')
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp('project'))

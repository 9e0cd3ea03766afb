import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'",
                    (ROOT / 'univip_mm/version.py').read_text()).group(1)


class BuildPy(build_py):
    """Puts into the wheel what lies beside the package: the configs and
    tools, where MIM and MMEngine look for them, and the file that is read at
    Python's start (see ``_univip_mm_configs.py``)."""

    def run(self) -> None:
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        build, mim = Path(self.build_lib), 'univip_mm/.mim'
        self.copy_file('univip_mm.pth', str(build))
        for name in ('configs', 'tools'):
            shutil.copytree(
                ROOT / name, build / mim / name, dirs_exist_ok=True,
                ignore=shutil.ignore_patterns('__pycache__'))
        self.copy_file('model-index.yml', str(build / mim))


def read_requirements(name: str) -> list:
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    return [line for line in lines if line and line[0] not in '#-']


setup(
    name='univip-mm',
    version=VERSION,
    description='UniVIP self-supervised pre-training for MMPretrain and '
    'MMSelfSup',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['univip_mm', 'univip_mm.*']),
    py_modules=['_univip_mm_configs'],
    package_data=dict(univip_mm=['py.typed']),
    cmdclass=dict(build_py=BuildPy),
    python_requires='>=3.9',
    # The host (mmpretrain) and its mmcv are the user's choice, so neither is
    # required here; importing the package says what is missing.
    install_requires=[
        'mmengine>=0.8.3', 'numpy', 'scikit-learn', 'setuptools<81',
        'simplejpeg', 'torch', 'torchvision', 'tqdm'
    ],
    extras_require=dict(
        proposals=['ijson', 'opencv-contrib-python-headless'],
        # mmcv with its operators, which both need, is built or found for the
        # machine's PyTorch: see docs/downstream.md.
        det=['mmdet>=3.3'],
        seg=['mmsegmentation>=1.2.2', 'ftfy', 'regex', 'prettytable'],
        dev=read_requirements('dev.txt') + read_requirements('docs.txt'),
        # Which hosts and mmcv MIM installs: mim install "univip-mm[mim]".
        mim=read_requirements('mminstall.txt')),
)

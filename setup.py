import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '([^']+)'",
                    (ROOT / 'univip_mm/version.py').read_text()).group(1)

setup(
    name='univip-mm',
    version=VERSION,
    description='UniVIP self-supervised pre-training for MMPretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['univip_mm', 'univip_mm.*']),
    python_requires='>=3.9',
    # The host (mmpretrain) and its mmcv are the user's choice, so neither is
    # required here; importing the package says what is missing.
    install_requires=[
        'mmengine>=0.8.3', 'numpy', 'scikit-learn', 'setuptools<81',
        'simplejpeg', 'torch', 'torchvision', 'tqdm'
    ],
    extras_require=dict(
        proposals=['ijson', 'opencv-contrib-python-headless']),
)

"""The configs that come with the package."""
from pathlib import Path

FOLDER = Path(__file__).parents[1] / '.mim' / 'configs'


def config_path(name: str) -> str:
    """Return the path of a config, for ``_base_`` of a config elsewhere.

    Args:
        name (str): Path below ``configs/``, such as 'univip_r50_coco.py'.

    Raises:
        FileNotFoundError: There is no such config.
    """
    path = FOLDER / name
    if not path.is_file():
        known = sorted(x.name for x in FOLDER.glob('*.py'))
        raise FileNotFoundError(
            f"univip_mm has no config '{name}': choose one of "
            f'{", ".join(known)}, or one below _base_/ or benchmarks/')
    return str(path)

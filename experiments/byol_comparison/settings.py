"""Methods, runs, sizes and folders of the experiment."""
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

FOLDER = Path(__file__).parent
# In the order of the paper and of the tables.
METHODS = dict(
    random='random initialization',
    byol='BYOL',
    byol_overlap='BYOL, overlap scenes',
    scene_instance='+ scene-instance',
    instance_instance='+ instance-instance',
    univip='UniVIP (both)',
    univip_random_boxes='UniVIP, random boxes',
    supervised='supervised')
# Methods without pre-training: their backbone is the one of univip.py.
NOT_PRETRAINED = ('random', 'supervised')
MEASURES = dict(
    linear_mAP='linear mAP, images',
    object_linear='linear, objects',
    object_knn='k-NN, objects',
    box_AP50='detection AP50')


class Scale(NamedTuple):
    """Configs and folders of a version of the experiment, and its sizes."""
    configs: Path
    data_dir: str
    work_dir: str
    num_train: int
    image_size: tuple[int, int]  # (width, height) of evaluated images
    object_size: int  # side of evaluated objects


SMALL = Scale(FOLDER / 'configs', 'data/quality', 'work_dirs/quality', 3000,
              (160, 120), 64)
LARGE = Scale(FOLDER / 'configs/large', 'data/quality_large',
              'work_dirs/quality_large', 12000, (320, 240), 128)


class Run(NamedTuple):
    """A method and a seed, and the settings that differ from the configs."""
    method: str
    seed: int
    name: Optional[str] = None
    options: tuple[str, ...] = ()  # KEY=VALUE changes of the config

    @property
    def stem(self) -> str:
        """Name of the run's files."""
        label = f'{self.method}-{self.name}' if self.name else self.method
        return f'{label}-seed{self.seed}'

    def __str__(self) -> str:
        return f'{self.method}, seed {self.seed}'


@dataclass
class Experiment:
    """Settings that are common to all runs of a command.

    Args:
        large (bool): Use the configs and sizes for a GPU.
        data_dir (str, optional): Folder of the data. Defaults to the folder
            of the scale, like the four arguments below.
        num_train (int, optional): Number of training scenes.
        results (str, optional): Folder of the results.
        work_dir (str, optional): Folder of logs and checkpoints.
        num_val (int): Number of test scenes. Defaults to 1000.
        ann_file (str, optional): COCO json of photographs, used instead of
            scenes, for training and evaluation. Defaults to None.
        img_prefix (str, optional): Folder of the photographs.
        epochs (int, optional): Epochs of pre-training. Defaults to None, the
            number in the configs.
        bf16 (bool): Pre-train in bfloat16. Defaults to True.
        skip_detection (bool): Do not fine-tune the detector.
    """
    large: bool = False
    data_dir: Optional[str] = None
    num_train: Optional[int] = None
    results: Optional[str] = None
    work_dir: Optional[str] = None
    num_val: int = 1000
    ann_file: Optional[str] = None
    img_prefix: Optional[str] = None
    epochs: Optional[int] = None
    bf16: bool = True
    skip_detection: bool = False

    def __post_init__(self) -> None:
        scale = self.scale
        self.data_dir = self.data_dir or scale.data_dir
        self.results = self.results or f'{scale.work_dir}/results'
        self.work_dir = self.work_dir or f'{scale.work_dir}/runs'
        if self.num_train is None:  # 0 is an error of its own
            self.num_train = scale.num_train
        # The photographs of the evaluation are those of the training.
        self.skip_detection = self.skip_detection or bool(self.ann_file)

    @property
    def scale(self) -> Scale:
        """Configs, default folders and sizes."""
        return LARGE if self.large else SMALL

    def result_path(self, run: Run) -> Path:
        """Return the path of the run's result."""
        return Path(self.results, f'{run.stem}.json')

    def run_dir(self, run: Run) -> Path:
        """Return the folder of the run's checkpoints."""
        return Path(self.work_dir, run.stem)

    def log_path(self, run: Run) -> Path:
        """Return the path of the run's log."""
        return Path(self.work_dir, f'{run.stem}.log')

    def backbone_path(self, run: Run) -> Path:
        """Return the path of the run's trained backbone."""
        return self.run_dir(run) / 'backbone.pth'

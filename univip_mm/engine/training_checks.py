"""All checks of a training config that need neither data nor weights."""
from mmengine.config import Config

from .config import check_num_instances
from .config_checks import check_config
from .cpu import check_mixed_precision
from .graph_check import check_graph
from .network_check import check_network


def check_training(cfg: Config) -> None:
    """Run all checks of a training config before anything is built.

    Raises:
        ValueError: One line with the key, the fault and the cure.
    """
    check_config(cfg)
    check_num_instances(cfg)
    check_mixed_precision(cfg)
    check_graph(cfg)
    check_network(cfg)

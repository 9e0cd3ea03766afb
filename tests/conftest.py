import hypothesis
import torch

# One thread: small tensors, and results that do not depend on the machine.
torch.set_num_threads(1)

hypothesis.settings.register_profile(
    'univip', deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile('univip')

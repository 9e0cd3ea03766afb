"""Object proposals: selective search, importers and the proposal file.

Nothing in this package needs PyTorch or a host.
"""
from .generate import generate_proposals
from .proposal_file import ProposalFile, write_proposals
from .search import Search
from .selective_search import check_opencv, selective_search

__all__ = [
    'ProposalFile', 'Search', 'check_opencv', 'generate_proposals',
    'selective_search', 'write_proposals'
]

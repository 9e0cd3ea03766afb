from .generate import Search, generate_proposals
from .proposal_file import ProposalFile, write_proposals
from .selective_search import check_opencv, selective_search

__all__ = [
    'ProposalFile', 'Search', 'check_opencv', 'generate_proposals',
    'selective_search', 'write_proposals'
]

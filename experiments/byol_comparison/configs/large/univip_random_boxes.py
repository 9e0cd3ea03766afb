# The large version of UniVIP without proposals.
_base_ = './univip.py'

train_dataloader = dict(dataset=dict(proposal_file='proposals/none.npz'))

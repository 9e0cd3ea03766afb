# UniVIP without proposals: the file has none, so all instances are random
# boxes in the overlap, with the sizes and shapes of proposals.
_base_ = './univip.py'

train_dataloader = dict(dataset=dict(proposal_file='proposals/none.npz'))

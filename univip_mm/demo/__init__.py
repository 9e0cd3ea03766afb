"""Generator of the scenes that the demo trains on."""

"""Pre-training in one call: from images to a backbone."""

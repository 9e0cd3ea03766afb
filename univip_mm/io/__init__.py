"""Image files, COCO files and boxes, without PyTorch and without a host."""

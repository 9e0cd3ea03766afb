"""Files and boxes. Imports neither PyTorch nor a host."""

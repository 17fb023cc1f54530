"""One folder per variant of convolution; what several need is in `_shared`."""

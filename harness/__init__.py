"""The law and the clock: what knows nothing about any particular convolution."""

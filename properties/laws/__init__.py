"""The laws: every module here is loaded, every `Law` value in it is checked."""

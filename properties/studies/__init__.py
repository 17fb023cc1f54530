"""Experiments of the documents behind the variants, repeated by their protocols, kept as evidence."""

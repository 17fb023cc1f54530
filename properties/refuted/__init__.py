"""Mutants: every module here is loaded, every `Mutant` in its list `MUTANTS` must be refuted."""

"""The laws, the mutants that test them, and the tests that run both."""

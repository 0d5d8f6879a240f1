"""Chaos: random events under real connections, with invariants that are checked all the time."""

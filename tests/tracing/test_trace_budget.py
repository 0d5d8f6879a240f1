"""The budget of examined frames."""

from lbmux.tracing.trace_budget import Budget


def test_looks_at_a_bounded_number_a_second_and_counts_the_rest() -> None:
    budget = Budget(1000, now=0.0)
    assert [budget.take(400, now=0.0) for _ in range(2)] == [400, 400] and not budget.is_spent
    assert budget.take(400, now=0.0) == 200 and budget.is_spent
    assert (budget.take(100, now=0.05), budget.skipped) == (50, 250)
    assert budget.take(5000, now=100.0) == 1000

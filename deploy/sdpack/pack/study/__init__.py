"""The best mix at each of several budgets."""

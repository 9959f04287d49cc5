"""Studies: the best mix at each of several memory budgets."""

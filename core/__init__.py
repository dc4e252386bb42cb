"""The words and the rules: bars, accounts, costs, risk, engine, metrics, settings, errors."""

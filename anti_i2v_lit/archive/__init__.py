"""What is kept about a run: the ledger, progress in flight, the lock, plan, status and verify."""

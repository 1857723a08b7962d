"""Claims about the replicator → whether they hold: unit, database, oracle and faults."""

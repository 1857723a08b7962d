"""`bucket_definitions` → Definitions: parameter queries, data queries, and what to warn of."""

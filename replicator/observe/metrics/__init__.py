"""What is counted in each process, gathered in storage, and told to Prometheus."""

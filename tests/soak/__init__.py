"""Minutes of load with everything going wrong, one thing after another."""

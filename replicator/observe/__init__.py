"""What a person may look at while it runs."""

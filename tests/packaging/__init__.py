"""What is shipped beside the code: a unit for systemd, an image, a compose file."""

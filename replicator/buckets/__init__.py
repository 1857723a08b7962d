"""What has been stored, and up to where: Puts and Removes → Ops and a Checkpoint."""

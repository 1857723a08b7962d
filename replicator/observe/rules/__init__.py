"""Rules → what a person asks about them: are they right, what do they come to, who gets what."""

"""`./dev` on machines that lack things → what a stranger sees."""

"""How everything is, at a look: what is wrong, since when, what it threatens, and what to do."""

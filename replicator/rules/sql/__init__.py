"""SQL of the rules → Expressions, names resolved: the part of the grammar that the language has."""

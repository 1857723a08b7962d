"""Files people write: text → trees whose every part knows its line and column."""

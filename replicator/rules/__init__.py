"""Who gets which rows: Change × Rules → Puts and Removes."""

-- What the rules make of a table, to notice when they have become others while nothing ran.
ALTER TABLE tables ADD COLUMN rules text;

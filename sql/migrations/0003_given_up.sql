-- A permission to begin again is given for what was lost when it was given, and for nothing that is lost later.
ALTER TABLE checkpoints DROP COLUMN is_to_begin_again;
ALTER TABLE checkpoints ADD COLUMN given_up text;

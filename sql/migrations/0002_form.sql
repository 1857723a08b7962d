-- What else the catalogue said of a table when it was last looked at; nothing for those from before this.
ALTER TABLE tables ADD COLUMN form text NOT NULL DEFAULT '';

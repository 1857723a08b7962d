-- Whether people have decided about a lane's jobs since it was taken: then it is looked at anew.
ALTER TABLE ehr_lanes ADD COLUMN decided boolean NOT NULL DEFAULT false;

-- The sandbox: a small record system for the demo and the tests, in a schema of its own. Not for real records.

-- name: schema
CREATE SCHEMA IF NOT EXISTS sandbox;
CREATE TABLE IF NOT EXISTS sandbox.ehrs (
    ehr_id             uuid        PRIMARY KEY,
    subject_id         text,
    subject_namespace  text,
    created_at         timestamptz NOT NULL,
    UNIQUE (subject_namespace, subject_id)
);
CREATE TABLE IF NOT EXISTS sandbox.templates (
    template_id   text        PRIMARY KEY,
    -- As uploaded; NULL if only a web template was given.
    opt           text,
    web_template  json        NOT NULL,
    created_at    timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS sandbox.contributions (
    contribution_id  uuid        PRIMARY KEY,
    ehr_id           uuid        NOT NULL REFERENCES sandbox.ehrs,
    audit            json        NOT NULL,
    committed_at     timestamptz NOT NULL
);
-- Every version of every object there has been; a deletion is a version without a body.
CREATE TABLE IF NOT EXISTS sandbox.versions (
    object_id        uuid        NOT NULL,
    number           integer     NOT NULL CHECK (number > 0),
    ehr_id           uuid        NOT NULL REFERENCES sandbox.ehrs,
    kind             text        NOT NULL CHECK (kind IN ('COMPOSITION', 'EHR_STATUS')),
    contribution_id  uuid        NOT NULL REFERENCES sandbox.contributions,
    -- A code of openEHR's group "audit change type".
    change           text        NOT NULL CHECK (change IN ('249', '250', '251', '523')),
    template_id      text        REFERENCES sandbox.templates,
    form             text        NOT NULL CHECK (form IN ('canonical', 'flat')),
    -- As given, to the last blank.
    body             json,
    source_system    text,
    source_version   text,
    -- Of the items it came from: what they are called in the source, and what they are there.
    source_items     text[]      NOT NULL,
    source_types     text[]      NOT NULL,
    committed_at     timestamptz NOT NULL,
    PRIMARY KEY (object_id, number),
    CHECK ((change = '523') = (body IS NULL))
);
CREATE INDEX IF NOT EXISTS versions_of_ehr ON sandbox.versions (ehr_id, kind);

-- name: add_ehr
-- No row if its id or its subject is taken.
INSERT INTO sandbox.ehrs (ehr_id, subject_id, subject_namespace, created_at)
VALUES (%(ehr_id)s::uuid, %(subject_id)s::text, %(subject_namespace)s::text, %(now)s::timestamptz)
ON CONFLICT DO NOTHING RETURNING ehr_id::text

-- name: ehr
SELECT ehr_id::text, created_at FROM sandbox.ehrs WHERE ehr_id = %(ehr_id)s::uuid

-- name: lock_ehr
-- Changes of one record come one after the other.
SELECT ehr_id::text, created_at FROM sandbox.ehrs WHERE ehr_id = %(ehr_id)s::uuid FOR UPDATE

-- name: ehr_of_subject
SELECT ehr_id::text, created_at FROM sandbox.ehrs
WHERE subject_id = %(subject_id)s::text AND subject_namespace = %(subject_namespace)s::text

-- name: move_subject
UPDATE sandbox.ehrs SET subject_id = %(subject_id)s::text, subject_namespace = %(subject_namespace)s::text
WHERE ehr_id = %(ehr_id)s::uuid

-- name: add_template
-- No row if there is one of this id.
INSERT INTO sandbox.templates (template_id, opt, web_template, created_at)
VALUES (%(template_id)s::text, %(opt)s::text, %(web_template)s::json, %(now)s::timestamptz)
ON CONFLICT DO NOTHING RETURNING template_id

-- name: template
SELECT opt, web_template FROM sandbox.templates WHERE template_id = %(template_id)s::text

-- name: templates
SELECT template_id, web_template ->> 'concept', created_at FROM sandbox.templates ORDER BY template_id

-- name: add_contribution
INSERT INTO sandbox.contributions (contribution_id, ehr_id, audit, committed_at)
VALUES (%(contribution_id)s::uuid, %(ehr_id)s::uuid, %(audit)s::json, %(now)s::timestamptz)

-- name: contribution
SELECT audit FROM sandbox.contributions
WHERE ehr_id = %(ehr_id)s::uuid AND contribution_id = %(contribution_id)s::uuid

-- name: contributed
SELECT object_id::text, number, kind FROM sandbox.versions WHERE contribution_id = %(contribution_id)s::uuid
ORDER BY object_id, number

-- name: add_version
INSERT INTO sandbox.versions (object_id, number, ehr_id, kind, contribution_id, change, template_id, form, body,
                              source_system, source_version, source_items, source_types, committed_at)
VALUES (%(object_id)s::uuid, %(number)s::integer, %(ehr_id)s::uuid, %(kind)s::text, %(contribution_id)s::uuid,
        %(change)s::text, %(template_id)s::text, %(form)s::text, %(body)s::json, %(source_system)s::text,
        %(source_version)s::text, coalesce(%(source_items)s::text[], '{}'), coalesce(%(source_types)s::text[], '{}'),
        %(now)s::timestamptz)

-- name: versions
-- Oldest first.
SELECT object_id::text, number, ehr_id::text, kind, change, template_id, form, body, source_system, source_version, source_items,
       source_types, committed_at
FROM sandbox.versions WHERE object_id = %(object_id)s::uuid ORDER BY number

-- name: latest_of_ehr
-- What there is now of one kind in one EHR: the latest version of each object that is not deleted.
SELECT object_id::text, number, ehr_id::text, kind, change, template_id, form, body, source_system, source_version, source_items,
       source_types, committed_at
FROM (SELECT DISTINCT ON (object_id) * FROM sandbox.versions
      WHERE ehr_id = %(ehr_id)s::uuid AND kind = %(kind)s::text ORDER BY object_id, number DESC) AS latest
WHERE change <> '523' ORDER BY committed_at, object_id

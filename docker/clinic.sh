#!/bin/sh
# A new, empty Postgres → the small clinic of sql/clinic.sql, and the replicator's role with its password.
# What that role may do, `replicator publication apply --role replicator` gives it.
set -eu

section() { sed -n "/^-- name: $1\$/,/^-- name: /p" /clinic.sql; }

section schema | psql --set ON_ERROR_STOP=1 --quiet --username "$POSTGRES_USER" --dbname "$POSTGRES_DB"
# Of a pipe, the shell sees only how its end went: hence the question whether the tables are there.
psql --set ON_ERROR_STOP=1 --quiet --set password="$REPLICATOR_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
SELECT 'users'::regclass \g /dev/null
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
SQL

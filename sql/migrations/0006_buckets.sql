-- Buckets get a number, which their ops go by, and running totals; readers learn what a checkpoint changed.

-- What a bucket's ops go by. A name stands here from just before its first op is stored.
CREATE TABLE buckets (
    id    integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text     COLLATE "C" NOT NULL UNIQUE
);

-- Not renamed: its constraints would keep the names that the new ones are to have.
CREATE TABLE ops_by_name AS SELECT * FROM ops;
DROP TABLE ops;
INSERT INTO buckets (name) SELECT DISTINCT bucket FROM ops_by_name ORDER BY bucket;

-- The recorded history of every bucket. op_id orders all buckets together, so that a reader at a
-- checkpoint sees one moment of the source across all of them.
CREATE TABLE ops (
    op_id        bigint   NOT NULL,
    bucket       integer  NOT NULL,
    -- 32 bits. A bucket's checksum is the sum of those of its ops, modulo 2^32.
    checksum     integer  NOT NULL,
    op           text     COLLATE "C" NOT NULL CHECK (op IN ('PUT', 'REMOVE', 'MOVE', 'CLEAR')),
    object_type  text     COLLATE "C" NOT NULL,
    object_id    text     COLLATE "C" NOT NULL,
    -- Tells apart two source rows that show themselves under one type and id.
    subkey       text     COLLATE "C" NOT NULL,
    -- The row as JSON text, for a PUT; nothing for a REMOVE. For a MOVE or CLEAR, which stand for ops that later
    -- ones have overtaken, the last of those later ones: a reader at a checkpoint before it sees too little.
    data         text
);
INSERT INTO ops
SELECT o.op_id, b.id, (o.checksum - CASE WHEN o.checksum >= 2147483648 THEN 4294967296 ELSE 0 END)::integer,
       o.op, o.object_type, o.object_id, o.subkey, o.data
FROM ops_by_name AS o JOIN buckets AS b ON b.name = o.bucket ORDER BY o.op_id;
DROP TABLE ops_by_name;
ALTER TABLE ops ADD CONSTRAINT ops_pkey PRIMARY KEY (bucket, op_id);
-- Ops are appended in op_id order, so a few bytes per block find a position in all buckets together.
CREATE INDEX ops_op_id ON ops USING brin (op_id) WITH (pages_per_range = 32, autosummarize = on);

-- The same, for people: every op with its bucket's name.
CREATE VIEW history AS
SELECT o.op_id, b.name AS bucket, o.op, o.object_type, o.object_id, o.subkey, o.checksum, o.data
FROM ops AS o JOIN buckets AS b ON b.id = o.bucket;

-- What a bucket's ops come to, up to one of them. Not every op has such a row, but the next one is never far.
CREATE TABLE totals (
    bucket    integer  NOT NULL,
    op_id     bigint   NOT NULL,
    checksum  bigint   NOT NULL CHECK (checksum BETWEEN 0 AND 4294967295),
    count     bigint   NOT NULL CHECK (count >= 0),
    PRIMARY KEY (bucket, op_id)
);
INSERT INTO totals
SELECT bucket, max(op_id), mod(mod(sum(checksum::bigint), 4294967296) + 4294967296, 4294967296), count(*)
FROM ops GROUP BY bucket;

-- Which buckets, and which lookups under which keys, the ops up to here have changed since the row before;
-- nothing where it is too many to say. Readers need the newest only.
CREATE TABLE changes (
    op_id        bigint       PRIMARY KEY,
    buckets      integer[],
    lookups      text[],
    recorded_at  timestamptz  NOT NULL
);

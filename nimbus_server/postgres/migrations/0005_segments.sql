-- The log as Parquet files, for the questions that read much of it. All three tables can be made anew from the log.

-- Up to where each project's log is in live segments. A project that has none has no row yet.
CREATE TABLE segment_marks (
    project_id uuid PRIMARY KEY REFERENCES projects ON DELETE CASCADE,
    last_seq   bigint NOT NULL DEFAULT 0,
    -- Grows where segments that were written from an earlier state of the log must not be published any more.
    epoch      bigint NOT NULL DEFAULT 0
);

-- Each row is a file, <data>/segments/<project_id>/<id>.parquet, that never changes.
CREATE TABLE segments (
    project_id uuid NOT NULL REFERENCES segment_marks ON DELETE CASCADE,
    id         uuid NOT NULL,
    first_seq  bigint NOT NULL,
    last_seq   bigint NOT NULL,
    ts_min     timestamptz NOT NULL,
    ts_max     timestamptz NOT NULL,
    rows       bigint NOT NULL,
    bytes      bigint NOT NULL,
    -- The properties with columns of their own, and the kinds of their values: {"props.amount": "nj"}.
    columns    jsonb NOT NULL,
    -- When others took its place. Its file is deleted once no question that began before can still read it.
    retired_at timestamptz,
    PRIMARY KEY (project_id, id)
);
CREATE INDEX segments_live ON segments (project_id, ts_max) WHERE retired_at IS NULL;

-- Erasures under way: questions leave out the events up to position `upto` whose `field` has this value.
CREATE TABLE erasures (
    project_id uuid NOT NULL REFERENCES segment_marks ON DELETE CASCADE,
    field      text NOT NULL CHECK (field IN ('user_id', 'anonymous_id')),
    value      text NOT NULL,
    upto       bigint NOT NULL,
    PRIMARY KEY (project_id, field, value)
);

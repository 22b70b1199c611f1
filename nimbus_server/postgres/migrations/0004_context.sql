-- Constant defaults: PostgreSQL changes its catalog only and rewrites no row. Workers of the version before name the
-- columns that they COPY and read, and go on.
ALTER TABLE events
    ADD COLUMN anonymous_id text,
    ADD COLUMN context jsonb NOT NULL DEFAULT '{}';

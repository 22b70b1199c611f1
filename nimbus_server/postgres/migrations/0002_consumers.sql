-- Readers of a project's log whose position is kept. The one whose stream is open holds the row until `held_until`, and
-- renews that as long as it lives.
CREATE TABLE consumers (
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name       text NOT NULL,
    position   bigint NOT NULL,
    acked_at   timestamptz NOT NULL DEFAULT now(),
    holder     uuid,
    held_until timestamptz,
    PRIMARY KEY (project_id, name)
);

-- People.
CREATE TABLE users (
    id            uuid PRIMARY KEY,
    email         text NOT NULL,
    password_hash text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
-- The stored address keeps its case; identity does not depend on it.
CREATE UNIQUE INDEX users_email ON users (lower(email));

-- A login and the chain of refresh tokens that follows from it. Only the newest refresh token of a chain is good.
CREATE TABLE sessions (
    id               uuid PRIMARY KEY,
    user_id          uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    refresh_token_id uuid NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    refreshed_at     timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz NOT NULL,
    ended_at         timestamptz
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expires ON sessions (expires_at);

CREATE TABLE projects (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE members (
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, user_id)
);
CREATE INDEX members_user ON members (user_id);

-- The key in force has no expires_at; a rotated one has the moment of its end.
CREATE TABLE api_keys (
    id               text PRIMARY KEY,
    project_id       uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    secret_encrypted bytea NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz
);
CREATE UNIQUE INDEX api_keys_in_force ON api_keys (project_id) WHERE expires_at IS NULL;
CREATE INDEX api_keys_project ON api_keys (project_id);

-- The counter of each project's log. Whoever appends locks this row first and commits with it, which makes the order
-- of positions the order of commits.
CREATE TABLE streams (
    project_id uuid PRIMARY KEY REFERENCES projects ON DELETE CASCADE,
    last_seq   bigint NOT NULL DEFAULT 0
);

-- The log. Not tied to projects by a foreign key: its check would cost a lookup an event, the lock on streams proves
-- the same, and a deleted project's events are purged in steps.
CREATE TABLE events (
    project_id      uuid NOT NULL,
    ts              timestamptz NOT NULL,
    id              uuid NOT NULL,
    seq             bigint NOT NULL,
    received_at     timestamptz NOT NULL,
    name            text NOT NULL,
    user_id         text,
    idempotency_key text,
    props           jsonb NOT NULL,
    PRIMARY KEY (project_id, ts, id)
) PARTITION BY RANGE (ts);
CREATE INDEX events_seq ON events (project_id, seq);
-- Imported history shares one partition; from 2020 on there is one a month, made when it is needed. Every partition
-- costs every query a little, so their number must not follow from what someone sends.
CREATE TABLE events_before_2020 PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-01-01 00:00:00+00');

-- The ts that an event with an idempotency key but no ts of its own got when it came first.
CREATE TABLE event_keys (
    project_id uuid NOT NULL,
    id         uuid NOT NULL,
    ts         timestamptz NOT NULL,
    PRIMARY KEY (project_id, id)
);

CREATE TABLE event_counts (
    project_id uuid NOT NULL,
    minute     timestamptz NOT NULL,
    name       text NOT NULL,
    count      bigint NOT NULL,
    PRIMARY KEY (project_id, minute, name)
);

-- Deleted projects whose log still takes space.
CREATE TABLE purges (
    project_id   uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL DEFAULT now()
);

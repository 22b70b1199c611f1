-- By which a project's days begin, an IANA name.
ALTER TABLE projects ADD COLUMN timezone text NOT NULL DEFAULT 'UTC';

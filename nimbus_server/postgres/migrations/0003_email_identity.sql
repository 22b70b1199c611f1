-- The identity of an address ignores the case of ASCII letters and nothing else, whatever the locale of the database is:
-- other rules make one account of two mailboxes, such as İ@ and i@. So this splits, and can't meet a duplicate.
CREATE UNIQUE INDEX users_email_identity ON users (lower(email COLLATE "C"));
DROP INDEX users_email;

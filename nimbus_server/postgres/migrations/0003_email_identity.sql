-- The identity of an address ignores the case of ASCII letters and nothing else, whatever the locale of the database is:
-- other rules make one account of two mailboxes, such as İ@ and i@. The new rule splits accounts. Only where the locale
-- has rules of its own for ASCII letters, as Turkish has, may there be two of which one has to go first.
CREATE UNIQUE INDEX users_email_identity ON users (lower(email COLLATE "C"));
DROP INDEX users_email;

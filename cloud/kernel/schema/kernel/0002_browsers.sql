-- A browser in which somebody signed in: a page that is loaded again gets new tokens without the
-- password. Signing out ends the browser and every session that began in it.

CREATE TABLE browsers (
    browser_sha256 bytea PRIMARY KEY,          -- of its cookie
    user_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    auth_at        timestamptz NOT NULL,       -- when the password was given
    expires_at     timestamptz NOT NULL
);
CREATE INDEX browsers_of_user ON browsers (user_id);

ALTER TABLE sessions ADD COLUMN browser_sha256 bytea REFERENCES browsers ON DELETE SET NULL;
CREATE INDEX sessions_of_browser ON sessions (browser_sha256);

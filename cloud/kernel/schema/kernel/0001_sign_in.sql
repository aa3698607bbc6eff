-- The local issuer: who may sign in, and what it has issued. No token, code or password is in
-- here, only hashes; private keys are wrapped by the key vault.

CREATE TABLE users (
    user_id         uuid PRIMARY KEY,          -- `sub` in tokens: names may change, people not
    name            text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    password_hash   text NOT NULL,             -- argon2id, with its parameters
    roles           text[] NOT NULL,
    administrations text[] NOT NULL,           -- codes, or {*}
    created_at      timestamptz NOT NULL,
    password_at     timestamptz NOT NULL
);

-- By the hash of the name that was typed, whether or not there is such a user: a lock must not
-- tell who exists, and people type passwords into the wrong field.
CREATE TABLE login_tries (
    name_sha256  bytea PRIMARY KEY,
    failed       integer NOT NULL,
    last_at      timestamptz NOT NULL,
    locked_until timestamptz
);

CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,               -- RFC 7638 thumbprint
    algorithm  text NOT NULL,
    public_jwk jsonb NOT NULL,
    wrapped    bytea NOT NULL,                 -- private JWK, sealed for signing_keys.<kid>
    created_at timestamptz NOT NULL,
    retired_at timestamptz                     -- signs no more; published until its tokens ended
);

-- One sign-in of one client: everything issued from it ends together.
CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,               -- `sid` in tokens
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    client_id  text NOT NULL,
    scope      text NOT NULL,
    nonce      text,
    auth_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz,
    ended_why  text                            -- logout, refresh_reused, code_reused, password
);
CREATE INDEX sessions_of_user ON sessions (user_id);

CREATE TABLE authorization_codes (
    code_sha256  bytea PRIMARY KEY,
    session_id   uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    challenge    text NOT NULL,                -- PKCE, S256
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz
);

CREATE TABLE refresh_tokens (
    token_sha256 bytea PRIMARY KEY,
    session_id   uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    expires_at   timestamptz NOT NULL,
    rotated_at   timestamptz                   -- exchanged for the next one
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);

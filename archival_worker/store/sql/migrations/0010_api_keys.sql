-- API keys of services. Of a key only a keyed hash is here: whoever reads this table can sign in with nothing of it.
CREATE TABLE api_keys (
    key_id     text PRIMARY KEY,
    name       text NOT NULL,
    -- HMAC-SHA256 of the whole key with API_KEY_SECRET.
    digest     bytea NOT NULL,
    user_id    text NOT NULL,
    roles      text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

-- A message that comes again before anybody looked is the same dead letter. Messages before this have no digest.
ALTER TABLE row_dead_letters ADD COLUMN digest bytea;  -- SHA-256 of what a whole message says; NULL for a row
CREATE UNIQUE INDEX row_dead_letters_once ON row_dead_letters (topic_gateway, code, digest)
    WHERE state = 'open' AND digest IS NOT NULL;
-- Which rows of a message have letters of their own (a replay of the message asks).
CREATE INDEX row_dead_letters_by_row ON row_dead_letters (gateway_key, stream, seq) WHERE seq IS NOT NULL;

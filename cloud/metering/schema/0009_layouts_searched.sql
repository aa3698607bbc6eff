-- Compact layouts that no full frame taught: searched among plausible ones, believed once a second telegram agrees.
ALTER TABLE compact_formats ADD COLUMN searched boolean NOT NULL DEFAULT false;  -- false: a full frame taught it
CREATE TABLE layout_doubts (
    signature        integer PRIMARY KEY CHECK (signature BETWEEN 0 AND 65535),
    newest           bytea NOT NULL,        -- the compact frame searched last, in clear, from its signature on
    layouts          bytea[] NOT NULL,      -- that fit a frame; at most 16
    frames           bytea[] NOT NULL,      -- beside `layouts`: which one
    searches         smallint NOT NULL,
    decoder_version  integer NOT NULL,      -- another version may know other layouts: its doubts begin anew
    changed_at       timestamptz NOT NULL
);

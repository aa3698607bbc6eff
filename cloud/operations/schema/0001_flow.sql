-- Operations: its own picture of how much came through, made from events alone.

-- Readings recorded in each hour of receipt: what the pipeline page adds up.
CREATE TABLE recorded_hours (
    hour_at   timestamptz PRIMARY KEY,
    events    bigint NOT NULL,
    readings  bigint NOT NULL,
    newest_at timestamptz NOT NULL  -- latest register among them
) WITH (fillfactor = 80);

-- Alerts as they were told, newest state last: the feed beside the picture.
CREATE TABLE alert_feed (
    feed_key       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert          bigint NOT NULL,
    meter_key      bigint NOT NULL,
    administration text NOT NULL,
    kind           text NOT NULL,
    level          smallint NOT NULL,
    state          text NOT NULL,
    told_at        timestamptz NOT NULL
);

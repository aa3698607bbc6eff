-- The bus tables every context has in its own schema. Applied with search_path = that schema.

-- Events this context publishes, in the order (xid, id). Readers follow the commit horizon:
-- (xid, id) > position AND xid < pg_snapshot_xmin(pg_current_snapshot()). A bare "id > last"
-- loses the events of transactions that commit late.
CREATE SEQUENCE outbox_id_seq;

CREATE TABLE outbox (
    xid  xid8   NOT NULL DEFAULT pg_current_xact_id(),
    id   bigint NOT NULL DEFAULT nextval('outbox_id_seq'),
    day  date   NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,  -- partition key, nothing else
    type text   NOT NULL,  -- what readers filter by
    wire bytea  NOT NULL,  -- the attributes as a line of text, then the body: cloud/kernel/events.py
    PRIMARY KEY (xid, id, day)
) PARTITION BY RANGE (day);

-- The body is already compressed or too small to be worth it.
ALTER TABLE outbox ALTER COLUMN wire SET STORAGE EXTERNAL;

-- A safety net: publishing never fails because nobody made today's partition.
CREATE TABLE outbox_default PARTITION OF outbox DEFAULT;

-- Make the partitions of the days first_day … first_day + days − 1; return how many are new. A
-- day that already has rows in the safety net stays there.
CREATE FUNCTION outbox_make_partitions(first_day date, days integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    made integer := 0;
    wanted date;
    name text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('outbox partitions ' || current_schema(), 0));
    FOR wanted IN SELECT first_day + n FROM generate_series(0, days - 1) AS n LOOP
        name := 'outbox_' || to_char(wanted, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(name) IS NOT NULL;
        CONTINUE WHEN EXISTS (SELECT FROM outbox_default WHERE day = wanted);
        EXECUTE format('CREATE TABLE %I PARTITION OF outbox FOR VALUES FROM (%L) TO (%L)',
                       name, wanted, wanted + 1);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- Drop the partitions of days before `keep_from` whose every event is at or before (xid, id), the
-- position of the slowest consumer; return how many. One day at a time, oldest first, stopping at
-- the first that somebody still needs.
CREATE FUNCTION outbox_drop_partitions(keep_from date, passed_xid xid8, passed_id bigint)
RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    dropped integer := 0;
    name text;
    needed boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('outbox partitions ' || current_schema(), 0));
    FOR name IN
        SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = 'outbox'::regclass AND c.relname ~ '^outbox_[0-9]{8}$'
          AND to_date(right(c.relname, 8), 'YYYYMMDD') < keep_from
        ORDER BY c.relname
    LOOP
        -- Nobody writes a past day any more, but a transaction that began before midnight might.
        EXECUTE format('LOCK TABLE %I IN SHARE MODE', name);
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE (xid, id) > ($1, $2))', name)
            INTO needed USING passed_xid, passed_id;
        EXIT WHEN needed;
        EXECUTE format('DROP TABLE %I', name);
        dropped := dropped + 1;
    END LOOP;
    DELETE FROM outbox_default WHERE day < keep_from AND (xid, id) <= (passed_xid, passed_id);
    RETURN dropped;
END $$;

-- For the context itself, not for the relay, which only reads.
REVOKE EXECUTE ON FUNCTION outbox_make_partitions, outbox_drop_partitions FROM PUBLIC;

SELECT outbox_make_partitions((now() AT TIME ZONE 'UTC')::date, 3);

-- What this context has consumed. The inbox of an ordered log needs one row per partition: every
-- event at or before the token has had its effect (or is a dead letter). The row changes in the
-- transaction of the effect, so a redelivered event is recognised and the effect happens once.
CREATE TABLE inbox (
    subscription text   NOT NULL,
    partition    text   NOT NULL,  -- PostgreSQL log: the publishing context; Kafka: topic and number
    xid          xid8   NOT NULL,
    id           bigint NOT NULL,
    handled      bigint NOT NULL DEFAULT 0,  -- events whose effect happened
    moved_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (subscription, partition)
) WITH (fillfactor = 50);  -- updated in place, all the time

-- Events that could not be handled, kept whole until somebody replays or dismisses it.
CREATE TABLE dead_letter (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription text NOT NULL,
    code         text NOT NULL,  -- stable, for people and counters
    reason       text NOT NULL,
    attempts     integer NOT NULL,
    first_at     timestamptz NOT NULL,
    last_at      timestamptz NOT NULL,
    state        text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'dismissed')),
    headers      jsonb NOT NULL,  -- the CloudEvents attributes
    data         bytea,
    blob         text,
    CHECK ((data IS NULL) <> (blob IS NULL))
);
CREATE INDEX dead_letter_open ON dead_letter (code, id) WHERE state = 'open';

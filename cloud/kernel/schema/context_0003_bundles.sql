-- Events of one transaction share a row of the log. Applied with search_path = the context's schema.

-- How many events `wire` holds; see cloud/kernel/wire.py. `id` is the number of the last, the others
-- count down from it: a position in the middle of a row is a number like any other.
ALTER TABLE outbox ADD COLUMN events smallint NOT NULL DEFAULT 1 CHECK (events BETWEEN 1 AND 128);

-- Every row has room for the numbers of its events below its own.
ALTER SEQUENCE outbox_id_seq INCREMENT BY 128;
SELECT nextval('outbox_id_seq');  -- the first row of a new log begins above zero

-- A row of up to a block stays where it is. A storage parameter is the partition's own: PostgreSQL
-- knows none of a partitioned table.
CREATE FUNCTION outbox_keep_inline(partition regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s SET (toast_tuple_target = 8160)', partition);
END $$;

SELECT outbox_keep_inline(inhrelid) FROM pg_inherits WHERE inhparent = 'outbox'::regclass;

-- As in context_0001_bus.sql, and each new day keeps its rows inline.
CREATE OR REPLACE FUNCTION outbox_make_partitions(first_day date, days integer) RETURNS integer
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
        PERFORM outbox_keep_inline(name::regclass);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

REVOKE EXECUTE ON FUNCTION outbox_keep_inline FROM PUBLIC;

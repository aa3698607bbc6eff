-- Events of one transaction share a row of the log. Applied with search_path = the context's schema.

-- How many events `wire` holds; see cloud/kernel/wire.py. `id` is the number of the last, the others
-- count down from it: a position in the middle of a row is a number like any other.
ALTER TABLE outbox ADD COLUMN events smallint NOT NULL DEFAULT 1 CHECK (events BETWEEN 1 AND 128);

-- Every row has room for the numbers of its events below its own.
ALTER SEQUENCE outbox_id_seq INCREMENT BY 128;
SELECT nextval('outbox_id_seq');  -- the first row of a new log begins above zero

-- A row of up to a block stays where it is. A storage parameter is the partition's own: PostgreSQL
-- knows none of a partitioned table.
CREATE FUNCTION outbox_keep_inline() RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    partition regclass;
BEGIN
    FOR partition IN
        SELECT c.oid FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = 'outbox'::regclass AND c.reloptions IS NULL
    LOOP
        EXECUTE format('ALTER TABLE %s SET (toast_tuple_target = 8160)', partition);
    END LOOP;
END $$;

-- As before, and each new day keeps its rows inline.
ALTER FUNCTION outbox_make_partitions RENAME TO outbox_add_partitions;
CREATE FUNCTION outbox_make_partitions(first_day date, days integer) RETURNS integer
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    made integer := outbox_add_partitions(first_day, days);
BEGIN
    PERFORM outbox_keep_inline();
    RETURN made;
END $$;

REVOKE EXECUTE ON FUNCTION outbox_make_partitions, outbox_keep_inline FROM PUBLIC;

SELECT outbox_keep_inline();

-- Periods that may not overlap. Applied with search_path = the context's schema.

-- Let `target` hold at most one row for any key at any instant. Rows say when they hold in two
-- columns, half-open [starts, ends): `starts` included, `ends` not, NULL for "until further
-- notice"; timestamptz, date, or bigint (microseconds). `keys` are bigint columns; without any,
-- no two rows of the table may overlap.
--
--     CALL forbid_overlap('tariff_version', 'valid_from', 'valid_to', 'tariff_key');
--
-- "Equal key" is said as "the one-point ranges of the keys overlap", which GiST knows for ranges
-- by itself; a bare `WITH =` would need the extension btree_gist. A NULL key would be the range of
-- everything and refuse every row, so keys are made NOT NULL.
CREATE PROCEDURE forbid_overlap(
    target regclass, starts name, ends name, VARIADIC keys name[] DEFAULT '{}')
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    same_key text := '';
    key      name;
    kind     text;
    label    name;
BEGIN
    SELECT c.relname, CASE format_type(a.atttypid, NULL)
               WHEN 'timestamp with time zone' THEN 'tstzrange'
               WHEN 'date' THEN 'daterange'
               WHEN 'bigint' THEN 'int8range' END
        INTO STRICT label, kind
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE a.attrelid = target AND a.attname = starts;
    IF kind IS NULL THEN
        RAISE EXCEPTION '%.%: a period is of timestamptz, date or bigint', target, starts;
    END IF;
    FOREACH key IN ARRAY keys || starts LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', target, key);
    END LOOP;
    FOREACH key IN ARRAY keys LOOP
        same_key := same_key || format('int8range(%I, %1$I, ''[]'') WITH &&, ', key);
    END LOOP;
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I CHECK (%I < %I)',
                   target, label || '_period', starts, ends);
    EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I EXCLUDE USING gist (%s%s(%I, %I) WITH &&)',
                   target, label || '_overlap', same_key, kind, starts, ends);
END $$;

-- A backup remembers sessions that were ended since: whoever signed out, or lost a device, would be signed in again.
-- Everybody signs in anew after a restore. `aquacis restore` calls this (cloud/kernel/backup.py).
CREATE PROCEDURE after_restore() LANGUAGE sql SET search_path FROM CURRENT AS $$
    DELETE FROM refresh_tokens;
    DELETE FROM authorization_codes;
    DELETE FROM browsers;
    DELETE FROM sessions;
$$;

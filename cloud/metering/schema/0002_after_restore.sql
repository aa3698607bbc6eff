-- What a database that came back from a backup does not know, the gateways still hold: ask every
-- stream again for all after its `upto`. `aquacis restore` calls this (cloud/kernel/backup.py).
CREATE PROCEDURE after_restore() LANGUAGE sql SET search_path FROM CURRENT AS $$
    UPDATE edge_streams SET resend = true;
$$;

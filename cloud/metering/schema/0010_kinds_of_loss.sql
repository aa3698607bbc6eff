-- A full gateway gives up the less important rows first, so what is lost lies between what came.
ALTER TABLE edge_losses
    ADD COLUMN kind text NOT NULL DEFAULT 'mixed',  -- undecodable, sub_hourly, hourly, own, acked, refused, corrupt, mixed
    ADD COLUMN rows bigint,                         -- NULL = unknown how many
    ADD COLUMN seqs int8multirange;                 -- which of first_seq … last_seq; NULL = all of them
UPDATE edge_losses SET rows = last_seq - first_seq + 1 WHERE last_seq IS NOT NULL;

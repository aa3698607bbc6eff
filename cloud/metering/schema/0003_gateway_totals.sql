-- Totals a gateway has brought, kept as they come: adding up every batch ever would grow with the years.
ALTER TABLE gateways
    ADD COLUMN frames_total bigint NOT NULL DEFAULT 0,
    ADD COLUMN readings_total bigint NOT NULL DEFAULT 0;

UPDATE gateways g SET frames_total = b.frames, readings_total = b.readings
FROM (SELECT gateway_key, sum(frames) AS frames, sum(readings_new) AS readings
      FROM batches GROUP BY gateway_key) b
WHERE b.gateway_key = g.gateway_key;

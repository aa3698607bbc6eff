-- A register that fell within a day (a new meter, one turned back) makes its litres unknown, never negative.
ALTER TABLE readings_daily ADD COLUMN went_back boolean NOT NULL DEFAULT false;

UPDATE readings_daily d SET went_back = true
WHERE d.next_register_l < d.first_register_l
   OR EXISTS (SELECT FROM readings r
              WHERE r.meter_key = d.meter_key AND r.kind = 1 AND r.quality & 2 <> 0
                AND r.register_at > d.first_at AND r.register_at <= d.next_at);

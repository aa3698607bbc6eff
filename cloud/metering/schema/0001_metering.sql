-- Metering: what was heard (batches, receptions), what it says (readings), and what could not be believed.
-- Instants are timestamptz in UTC with microseconds; volumes are whole litres; every table is this context's own.
-- Written so that it is also valid on TimescaleDB hypertables: time in every unique key of readings, no foreign key
-- to readings, no row triggers.

-- 1. The registry: surrogate keys never change, natural ids may be many (a meter outlives its radio).
CREATE TABLE meters (
    meter_key       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    manufacturer    text,                          -- three letters of the wM-Bus link layer, e.g. KAW
    serial          text,                          -- eight digits
    dev_eui         text,                          -- sixteen upper-case hex digits
    version         smallint,
    medium          smallint,
    driver          text,
    administration  text NOT NULL,
    provisional     boolean NOT NULL DEFAULT true, -- minted by intake, not yet adopted by the registry
    clock_offset_s  integer,                       -- meter's clock minus UTC; NULL = the administration's default
    max_flow_lph    integer NOT NULL DEFAULT 40000 CHECK (max_flow_lph > 0),  -- physical limit, litres an hour
    created_at      timestamptz NOT NULL
);
CREATE INDEX meters_by_administration ON meters (administration, meter_key);

CREATE TABLE meter_names (
    name       text PRIMARY KEY,                   -- "KAW-53885758" or "0013EA0001020304"
    meter_key  bigint NOT NULL REFERENCES meters
);
CREATE INDEX meter_names_by_meter ON meter_names (meter_key);

-- Radio keys, wrapped by kernel/keyvault; the newest version decodes, older ones replay.
CREATE TABLE meter_keys (
    meter_key    bigint NOT NULL REFERENCES meters,
    version      integer NOT NULL CHECK (version > 0),
    wrapped      bytea NOT NULL,                   -- keyvault.Wrapped; AAD = "metering.meter_keys:<meter_key>:<version>"
    valid_from   timestamptz NOT NULL,
    PRIMARY KEY (meter_key, version)
);

-- One row: moves on when keys, names, offsets or formats change, so that workers drop what they remember.
CREATE TABLE registry_version (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    version  bigint NOT NULL
);
INSERT INTO registry_version (version) VALUES (1);

-- Newest accepted register of each meter. Locked in meter_key order by every writer of readings: whoever holds the
-- row knows that later instants are new, and no two workers can deadlock.
CREATE TABLE meter_state (
    meter_key         bigint PRIMARY KEY REFERENCES meters,
    last_at           timestamptz,
    last_register_l   bigint,
    last_heard_at     timestamptz,
    last_received_at  timestamptz,
    info_code         bigint,                      -- latched: last status the meter sent
    info_at           timestamptz
) WITH (fillfactor = 60);

CREATE TABLE gateways (
    gateway_key        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id                 text NOT NULL UNIQUE CHECK (id ~ '^[a-z0-9-]{1,32}$'),
    name               text NOT NULL,
    administration     text NOT NULL,
    expected_per_hour  integer,                    -- frames; NULL = learn from what was heard
    agent_version      text,
    capabilities       text[] NOT NULL DEFAULT '{}',
    last_seen_at       timestamptz,
    -- clock of the gateway against ours (decision 8); positive = gateway ahead
    clock_offset_us       bigint,
    clock_uncertainty_us  bigint,
    clock_quality         text NOT NULL DEFAULT 'untrusted' CHECK (clock_quality IN ('trusted', 'untrusted')),
    clock_samples         bigint[] NOT NULL DEFAULT '{}',  -- offset, uncertainty pairs, oldest first, at most 20 pairs
    shared_offset_us      bigint,                  -- the same, from frames shared with other gateways
    shared_frames         integer NOT NULL DEFAULT 0
);

-- 2. The edge protocol (decision 5).
CREATE TABLE edge_streams (
    gateway_key     bigint NOT NULL REFERENCES gateways,
    stream          bytea NOT NULL CHECK (length(stream) = 16),
    upto            bigint NOT NULL DEFAULT 0,     -- everything up to here is committed, rejected or declared lost
    head            bigint NOT NULL DEFAULT 0,     -- highest seq the gateway said it had committed
    head_at         timestamptz,
    started_at      timestamptz NOT NULL,          -- by the gateway's clock
    first_heard_at  timestamptz,
    last_heard_at   timestamptz,                   -- heard_at of the row `upto`, corrected
    seen_at         timestamptz NOT NULL,
    resend          boolean NOT NULL DEFAULT false,  -- a restored cloud asks for everything after upto
    PRIMARY KEY (gateway_key, stream)
);

-- Rows that will never come, with the bounds of the time they were heard in. Never deleted.
CREATE TABLE edge_losses (
    loss_key     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway_key  bigint NOT NULL REFERENCES gateways,
    stream       bytea NOT NULL,
    first_seq    bigint NOT NULL,
    last_seq     bigint,                           -- NULL = unknown how many
    reason       text NOT NULL CHECK (reason IN ('declared', 'new_stream')),
    certain      boolean NOT NULL,                 -- false: rows may have been lost, none is known to be
    from_at      timestamptz,
    to_at        timestamptz,
    reported_at  timestamptz NOT NULL,
    UNIQUE (gateway_key, stream, first_seq)
);

CREATE TABLE gateway_reports (
    report_key   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway_key  bigint NOT NULL REFERENCES gateways,
    kind         text NOT NULL,                    -- source_down, source_up, suppressed, clock_step, shed, …
    heard_at     timestamptz NOT NULL,
    received_at  timestamptz NOT NULL,
    payload      jsonb NOT NULL
);
CREATE INDEX gateway_reports_by_gateway ON gateway_reports (gateway_key, heard_at);

-- Frames heard per gateway and clock hour (corrected heard_at): expected against received.
CREATE TABLE gateway_hours (
    gateway_key  bigint NOT NULL REFERENCES gateways,
    hour_at      timestamptz NOT NULL,
    frames       integer NOT NULL,
    PRIMARY KEY (gateway_key, hour_at)
) WITH (fillfactor = 80);

-- 3. Raw: the batch as received is one blob named by its SHA-256; readings and receptions point to (batch_key, row).
-- sha256 is the ledger: a batch seen before is acked again and nothing else.
CREATE TABLE batches (
    batch_key        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256           bytea NOT NULL UNIQUE CHECK (length(sha256) = 32),
    gateway_key      bigint NOT NULL REFERENCES gateways,
    stream           bytea NOT NULL,
    first_seq        bigint NOT NULL,
    last_seq         bigint NOT NULL,
    rows             integer NOT NULL,             -- rows in the message; those at or below upto were skipped
    bytes            integer NOT NULL,
    sent_at          timestamptz NOT NULL,         -- by the gateway's clock
    received_at      timestamptz NOT NULL,
    clock_offset_us  bigint,                       -- subtracted from heard_at; NULL = unknown, nothing subtracted
    clock_quality    text NOT NULL,
    decoder_version  integer NOT NULL,
    frames           integer NOT NULL DEFAULT 0,   -- accepted
    rejected         integer NOT NULL DEFAULT 0,
    readings_new     integer NOT NULL DEFAULT 0,
    readings_known   integer NOT NULL DEFAULT 0,
    conflicts        integer NOT NULL DEFAULT 0
);
CREATE INDEX batches_by_received ON batches (received_at);
CREATE INDEX batches_by_gateway ON batches (gateway_key, received_at);

-- Every reception of every frame that could be decoded: one uplink heard by five gateways is five rows, one `frame`.
CREATE TABLE receptions (
    frame        bytea NOT NULL,                   -- 16 bytes: radio identity + counter + checked bytes
    batch_key    bigint NOT NULL,
    batch_row    integer NOT NULL,
    gateway_key  bigint NOT NULL,
    meter_key    bigint NOT NULL,
    heard_at     timestamptz NOT NULL,             -- corrected by the gateway's clock offset
    counter      bigint NOT NULL,                  -- ELL session/time or 32-bit fCnt
    rssi_dbm     smallint,
    snr_qdb      smallint,                         -- quarter dB
    radio        smallint NOT NULL,                -- 1 wM-Bus, 2 LoRaWAN
    integrity    smallint NOT NULL,                -- decoders.reading.Integrity
    key_version  smallint NOT NULL DEFAULT 0,      -- 0 = no key of ours was needed
    flags        smallint NOT NULL DEFAULT 0,      -- row flags of the uplink
    register_l   bigint,                           -- newest register in the frame
    PRIMARY KEY (batch_key, batch_row, heard_at)
) PARTITION BY RANGE (heard_at);
CREATE INDEX receptions_by_frame ON receptions (frame);
CREATE INDEX receptions_by_meter ON receptions (meter_key, heard_at);

-- 4. Readings: one row per (meter, instant, register kind) while hot, in day partitions.
CREATE TABLE readings (
    meter_key    bigint NOT NULL,
    register_at  timestamptz NOT NULL,             -- when the register had this value
    register_l   bigint NOT NULL,
    heard_at     timestamptz NOT NULL,             -- corrected; decides between receptions of one hour slot
    batch_key    bigint NOT NULL,
    batch_row    integer NOT NULL,
    kind         smallint NOT NULL,                -- 1 total
    clock        smallint NOT NULL,                -- 0 meter's own, 1 gateway trusted, 2 gateway untrusted
    quality      smallint NOT NULL,                -- bits: 1 late, 2 register went back, 4 jump, 8 corrected; 0 = good
    PRIMARY KEY (meter_key, register_at, kind)
) PARTITION BY RANGE (register_at);

-- Two values for one (meter, instant, kind). `kept_l` is what precedence (rules.py) says; both frames stay.
CREATE TABLE reading_conflicts (
    conflict_key      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_key         bigint NOT NULL,
    register_at       timestamptz NOT NULL,
    kind              smallint NOT NULL,
    kept_l            bigint NOT NULL,
    other_l           bigint NOT NULL,
    kept_batch_key    bigint NOT NULL,
    kept_batch_row    integer NOT NULL,
    other_batch_key   bigint NOT NULL,
    other_batch_row   integer NOT NULL,
    rule              text NOT NULL,               -- the precedence that decided
    detected_at       timestamptz NOT NULL,
    UNIQUE (meter_key, register_at, kind, kept_l, other_l)
);

-- From first register of the local day to the next day's first register (rollups.py).
CREATE TABLE readings_daily (
    meter_key        bigint NOT NULL,
    day_on           date NOT NULL,                -- America/Mexico_City
    first_at         timestamptz NOT NULL,
    first_register_l bigint NOT NULL,
    next_at          timestamptz,
    next_register_l  bigint,
    readings         integer NOT NULL,
    late             boolean NOT NULL DEFAULT false,
    PRIMARY KEY (meter_key, day_on)
);

-- Layouts of wM-Bus compact frames, learned from full frames.
CREATE TABLE compact_formats (
    layout      bytea PRIMARY KEY,                 -- DIF/VIF bytes; its CRC-16 is what compact frames carry
    learned_at  timestamptz NOT NULL,
    batch_key   bigint,
    batch_row   integer
);

-- 5. Alerts. Several gateways may each see an episode of the same leak; it is one alert.
CREATE TABLE alerts (
    alert_key    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    meter_key    bigint NOT NULL REFERENCES meters,
    gateway_key  bigint NOT NULL REFERENCES gateways,  -- who reported first
    kind         text NOT NULL CHECK (kind IN ('continuous_flow', 'burst')),
    level        smallint NOT NULL,                -- highest seen: 24, 48, 72 hours; 0 for a burst
    state        text NOT NULL CHECK (state IN ('open', 'closed')),
    rate_lph     bigint NOT NULL,                  -- litres an hour
    litres       bigint NOT NULL,
    started_at   timestamptz NOT NULL,
    opened_at    timestamptz NOT NULL,             -- detected
    updated_at   timestamptz NOT NULL,
    closed_at    timestamptz
);
CREATE UNIQUE INDEX alerts_one_open ON alerts (meter_key, kind) WHERE state = 'open';
CREATE INDEX alerts_by_meter ON alerts (meter_key, opened_at);

CREATE TABLE alert_episodes (
    episode      text PRIMARY KEY,                 -- 16 hex digits, from the agent
    alert_key    bigint NOT NULL REFERENCES alerts,
    gateway_key  bigint NOT NULL REFERENCES gateways,
    state        text NOT NULL CHECK (state IN ('open', 'closed'))
);
CREATE INDEX alert_episodes_by_alert ON alert_episodes (alert_key);

-- 6. What could not be believed: one row of a batch, or a whole message (batch_key NULL).
CREATE TABLE row_dead_letters (
    dead_letter_key  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code             text NOT NULL,
    detail           text NOT NULL,                -- English, for logs and the network desk
    gateway_key      bigint REFERENCES gateways,   -- owner of the topic; NULL = not registered
    topic_gateway    text NOT NULL,
    stream           bytea,
    seq              bigint,                       -- NULL = whole message
    batch_key        bigint,
    batch_row        integer,
    row_kind         smallint,                     -- uplink row kind; NULL = whole message
    meter            text,                         -- natural id, as far as it could be read
    bytes            bytea NOT NULL,               -- the frame, or the first 64 KiB of the message
    blob             text,                         -- the whole message, when longer
    row_fields       jsonb,                        -- heard_at, port, counter, …: all a replay needs beside the bytes
    received_at      timestamptz NOT NULL,
    state            text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'dismissed')),
    attempts         integer NOT NULL DEFAULT 1,
    last_attempt_at  timestamptz NOT NULL
);
CREATE INDEX row_dead_letters_by_code ON row_dead_letters (code, dead_letter_key);
CREATE INDEX row_dead_letters_open ON row_dead_letters (dead_letter_key) WHERE state = 'open';

-- 7. Partitions on demand. ATTACH takes SHARE UPDATE EXCLUSIVE on the parent: writers and readers go on meanwhile
-- (CREATE TABLE … PARTITION OF would stop them). Taking that lock first makes two workers wait for each other instead of
-- failing; an advisory lock would not do, since it does not refresh what the session knows of other tables.
-- The owner makes them, whoever asks: the context's login may not create tables.
CREATE FUNCTION ensure_partition(parent text, child text, from_at timestamptz, to_at timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF to_regclass(format('%I.%I', current_schema(), child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    IF to_regclass(format('%I.%I', current_schema(), child)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, from_at, to_at);
    RETURN true;
END $$;

CREATE FUNCTION ensure_reading_day(day_at timestamptz) RETURNS boolean
LANGUAGE sql AS $$
    SELECT ensure_partition('readings', 'readings_' || to_char(day_at AT TIME ZONE 'UTC', 'YYYYMMDD'),
        date_trunc('day', day_at, 'UTC'), date_trunc('day', day_at, 'UTC') + interval '1 day')
$$;

CREATE FUNCTION ensure_reception_month(month_at timestamptz) RETURNS boolean
LANGUAGE sql AS $$
    SELECT ensure_partition('receptions', 'receptions_' || to_char(month_at AT TIME ZONE 'UTC', 'YYYYMM'),
        date_trunc('month', month_at, 'UTC'), date_trunc('month', month_at, 'UTC') + interval '1 month')
$$;

-- What the agent last said about itself, and how many telegrams it has heard in all: its own count begins anew with its
-- process, so the cloud adds up. Most of what a wM-Bus receiver hears is not stored (reduction), but it was heard.
ALTER TABLE gateways
    ADD COLUMN health jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN heard_total bigint NOT NULL DEFAULT 0;

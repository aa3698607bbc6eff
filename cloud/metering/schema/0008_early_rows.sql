-- Rows above upto that came ahead of their turn (alerts, and what a gateway hears while it drains a backlog). They come
-- again in order and are passed over then; ranges that upto has passed are taken out.
ALTER TABLE edge_streams ADD COLUMN early int8multirange NOT NULL DEFAULT '{}';

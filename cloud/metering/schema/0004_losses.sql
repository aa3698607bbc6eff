-- Which of a gateway's streams came first is what we saw, never what its clock said.
ALTER TABLE edge_streams ADD COLUMN stream_key bigint GENERATED ALWAYS AS IDENTITY;

-- What a gateway declares is another fact than what a new stream lets us suspect of the same rows.
ALTER TABLE edge_losses
    DROP CONSTRAINT edge_losses_gateway_key_stream_first_seq_key,
    ADD UNIQUE (gateway_key, stream, first_seq, reason);

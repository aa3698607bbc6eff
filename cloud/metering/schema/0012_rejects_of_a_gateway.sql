-- A gateway's page lists and counts what of it was refused; among all gateways' letters that would be a walk through every byte.
CREATE INDEX row_dead_letters_by_gateway ON row_dead_letters (gateway_key, dead_letter_key);

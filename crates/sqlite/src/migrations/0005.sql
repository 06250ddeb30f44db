-- What was spoken, in characters; only of requests for speech.
ALTER TABLE usage ADD COLUMN characters INTEGER;

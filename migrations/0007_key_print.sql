-- Version 7: by which key a job was admitted, told from others of its controller whatever their names: 16 bits of a hash
-- of it, which find nobody a key. Null in jobs of earlier versions, and in refused ones.

ALTER TABLE jobs ADD COLUMN key_print INTEGER;

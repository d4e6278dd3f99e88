-- Addresses of the images of an item, in order.
ALTER TABLE items ADD COLUMN image_urls text[] NOT NULL DEFAULT '{}';

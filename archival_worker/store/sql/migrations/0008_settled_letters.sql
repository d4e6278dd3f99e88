-- How many letters a retry has stored: nodes of the read cache ask twice a second, however many others there are.
CREATE INDEX dead_letters_stored ON dead_letters (id) WHERE outcome = 'stored';

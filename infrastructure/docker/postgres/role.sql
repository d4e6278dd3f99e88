-- Runs once, when the volume is empty: the platform's own role, which is no superuser, and its database.
\getenv password BIDDING_PASSWORD
-- CREATEROLE: `migrate` makes the roles of the services, and may give them nothing but rights on what this one owns.
CREATE ROLE bidding LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE bidding OWNER bidding;

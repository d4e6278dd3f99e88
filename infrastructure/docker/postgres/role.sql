-- Runs once, when the volume is empty: the platform's own role, which is no superuser, and its database.
\getenv password BIDDING_PASSWORD
CREATE ROLE bidding LOGIN PASSWORD :'password';
CREATE DATABASE bidding OWNER bidding;

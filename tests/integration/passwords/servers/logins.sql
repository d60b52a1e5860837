CREATE TABLE logins (
    login text PRIMARY KEY, address text, hash text, active boolean DEFAULT true,
    uid integer, gid integer, home text
);
INSERT INTO logins VALUES
    ('alice@example.test', 'alice@example.test', '$argon2id$v=19$m=19456,t=2,p=1$qiDBv0TpKmUxjHcqlhMv9A$2CLr6uSyyAvpwrAeFnYZ/l3FHqIJwNO8NcgJmbTjib0', true, 31000, 31000, '/passwords/alice'),
    ('q*''=%#{x}\(y)', 'quentin@example.test', '{BLF-CRYPT}$2b$04$kbXq5AA8YmVRnPwNkeGLiOASBHMqtGedEqiG2l3Qi6Uhy13NTSLgW', true, NULL, NULL, NULL),
    ('super@example.test', 'super@example.test', '$6$rounds=1000$abcdefgh$DbXqPck5ABZumVXwcH5eMVHsPZwvQ3jylSxpJmKkZVxcoCiC3N0rPerjHmAqL7r6PK6CIeYnO9.vxpbsevscg/', true, 0, 0, '/'),
    ('strange@example.test', 'strange@example.test', '{MD4}81c4b1cd1b0ba0bc0b1cd1', true, NULL, NULL, NULL),
    ('nothing@example.test', 'nothing@example.test', NULL, true, NULL, NULL, NULL);
CREATE ROLE postern LOGIN PASSWORD 'the service''s own';
GRANT SELECT ON logins TO postern;

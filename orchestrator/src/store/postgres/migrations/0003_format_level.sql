-- The highest format that a session's binary can read. The cluster's level follows the lowest of them.
alter table sessions add column reads_format integer not null default 1 check (reads_format > 0);

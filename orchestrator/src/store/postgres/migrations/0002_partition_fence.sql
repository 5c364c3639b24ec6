-- Counts how often the session has given partitions back. A commit that waited behind such a statement reads what was
-- owned before it began; this number tells it that its picture is old.
alter table sessions add column releases bigint not null default 0 check (releases >= 0);

-- What limiters are made of: a row an ask, from the commit that takes it in until the one that takes the permit back, and as number
-- 0 how far a rate has run ahead. A limiter belongs to the partition of its address, whose owner alone writes its rows and keeps
-- them in memory; they are read when the partition is taken over, and by people.
create table permits (
    partition smallint not null check (partition >= 0),
    namespace text     not null,
    -- Its address: a hash of the limit's name and key, which the body has in full.
    limiter   text     not null,
    no        bigint   not null check (no >= 0),
    body      text     not null,
    primary key (partition, namespace, limiter, no)
) with (fillfactor = 80);

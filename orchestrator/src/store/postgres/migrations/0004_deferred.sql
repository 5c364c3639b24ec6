-- Inputs of the log whose cursor has passed them before their run could be loaded: a row from the commit that moves the cursor
-- until the commit that applies the input. They are taken by run, in the order of their numbers.
create table deferred (
    partition     smallint    not null references partitions (partition),
    no            bigint      not null check (no > 0),
    run_id        uuid        not null,
    cursor_seq    bigint      not null check (cursor_seq >= 0),
    cursor_at     timestamptz not null,
    cursor_stream text        not null,
    subject       text        not null,
    -- A JSON array of name and value pairs, in their order.
    headers       text        not null,
    body          bytea       not null,
    primary key (partition, no)
);

-- What operators allow queues. A row goes when nothing is said of the queue any more; every change raises `definitions_epoch`, by
-- which replicas know that they have something to read.
create table queues (
    namespace      text    not null references namespaces (name),
    queue          text    not null check (queue <> ''),
    max_concurrent integer check (max_concurrent > 0),
    rate_limit     integer check (rate_limit > 0),
    rate_per_us    bigint  check (rate_per_us > 0),
    primary key (namespace, queue),
    check ((rate_limit is null) = (rate_per_us is null)),
    check (max_concurrent is not null or rate_limit is not null)
);

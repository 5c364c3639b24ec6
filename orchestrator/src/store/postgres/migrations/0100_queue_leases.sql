-- How long a worker may be silent about a task of a queue; where it is null the definitions say so.
alter table queues
    add column ack_wait_us bigint check (ack_wait_us > 0),
    drop constraint queues_check1,
    add constraint queues_say_something
        check (max_concurrent is not null or rate_limit is not null or ack_wait_us is not null);

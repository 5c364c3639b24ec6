-- The spine: one cluster, its replicas and partitions, runs and their events.
-- Migrations only ever append: never edit one that has been released.

-- What the cluster was initialised with: one row.
create table cluster (
    singleton         boolean  primary key default true check (singleton),
    id                uuid     not null default gen_random_uuid(),
    partitions        smallint not null check (partitions > 0),
    secret            bytea    not null check (octet_length(secret) = 32),
    format_level      integer  not null check (format_level > 0),
    -- Grows with every registration, so that a replica sees cheaply that its cache of definitions is old.
    definitions_epoch bigint   not null default 0,
    created_at        timestamptz not null default clock_timestamp()
);

create table namespaces (
    name            text     collate "C" primary key check (name <> ''),
    retention_class smallint not null default 0 check (retention_class >= 0)
);
insert into namespaces (name, retention_class) values ('default', 0);

create table definitions (
    namespace     text        collate "C" not null references namespaces (name),
    workflow      text        collate "C" not null,
    version       integer     not null check (version > 0),
    hash          text        not null,
    body          text        not null,
    source        text        not null,
    registered_at timestamptz not null,
    primary key (namespace, workflow, version)
);
create index definitions_by_hash on definitions (hash);

-- One row a life of a replica. Every commit compares epoch and batch_no and sets the next batch_no: the low fill factor
-- keeps these updates on the row's own page.
create table sessions (
    id          uuid        primary key,
    replica     text        not null,
    epoch       bigint      not null check (epoch > 0),
    batch_no    bigint      not null default 0 check (batch_no >= 0),
    lease_until timestamptz not null,
    -- The session that has begun to take this one over; only ever set together with a higher epoch.
    claimed_by  uuid,
    check (claimed_by is distinct from id)
) with (fillfactor = 20);
create index sessions_by_replica on sessions (replica);

-- Who owns a slice of workflow ids, and how far its log has been taken. The last one is the ingress of un-keyed starts.
create table partitions (
    partition     smallint    primary key check (partition >= 0),
    owner         uuid        references sessions (id),
    cursor_seq    bigint      not null default 0 check (cursor_seq >= 0),
    cursor_at     timestamptz not null default 'epoch',
    cursor_stream text        not null default ''
) with (fillfactor = 20);
create index partitions_by_owner on partitions (owner);

-- One row a batch until all it caused to be published is acknowledged. (session, batch_no) names the batch for ever;
-- holder is who has to publish it now. There is no foreign key: a commit outlives the session that made it.
create table commits (
    session    uuid      not null,
    batch_no   bigint    not null,
    holder     uuid      not null,
    run_ids    uuid[]    not null,
    first_seqs integer[] not null,
    last_seqs  integer[] not null,
    messages   text,
    primary key (session, batch_no),
    check (cardinality(run_ids) = cardinality(first_seqs) and cardinality(run_ids) = cardinality(last_seqs))
);
create index commits_by_holder on commits (holder);

-- Written when a run starts, when it closes, and at the rare changes a list must show.
create table runs (
    run_id            uuid        primary key,
    retention_class   smallint    not null check (retention_class >= 0),
    partition         smallint    not null check (partition >= 0),
    version           integer     not null,
    namespace         text        collate "C" not null,
    workflow_id       text        collate "C" not null,
    workflow          text        not null,
    definition        text        not null,
    status            text        not null,
    started_at        timestamptz not null,
    closed_at         timestamptz,
    wake_at           timestamptz,
    request_id        text,
    search_attributes jsonb check (jsonb_typeof(search_attributes) = 'object'),
    outcome           text,
    -- An open run has an open status and a closed one a final status.
    check (case when closed_at is null
                then status in ('running', 'compensating', 'paused', 'parked')
                else status in ('completed', 'failed', 'compensated', 'compensation_failed', 'cancelled', 'timed_out',
                                'terminated', 'continued_as_new') end),
    -- What is closed waits for nothing.
    check (closed_at is null or wake_at is null)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- One index, two uses: all open runs of a workflow id share the slot nil, so there is at most one; its closed ones lie
-- behind it in the order they started, so the newest is one step from the end of the prefix.
create unique index runs_by_workflow_id on runs
    (namespace, workflow_id,
     (case when closed_at is null then '00000000-0000-0000-0000-000000000000'::uuid else run_id end));
create index runs_due on runs (partition, wake_at) where wake_at is not null;
-- For lists alone, which say so by the collation (it orders as "C" does): before the first analyze the planner would
-- else take this index, with its one fitting column, for looking up a workflow id.
create index runs_listed on runs (namespace collate "POSIX", run_id);
create index runs_by_search_attributes on runs using gin (search_attributes jsonb_path_ops)
    where search_attributes is not null;

-- The state of a run after seq, so that loading it does not fold every event.
create table snapshots (
    run_id uuid    primary key,
    seq    integer not null check (seq > 0),
    body   text    not null
);

-- One row a transition, append only. Partitioned by retention class, then by the day the run started (a run id is a
-- UUIDv7), so that retention drops tables instead of deleting rows.
create table events (
    retention_class smallint    not null check (retention_class >= 0),
    seq             integer     not null check (seq > 0),
    run_id          uuid        not null,
    at              timestamptz not null,
    body            text        not null,
    primary key (retention_class, run_id, seq)
) partition by list (retention_class);
-- The net: no commit fails because a partition was not made in time.
create table events_default partition of events default;

-- Each event of each transition as a row, for people and for SQL.
create view event_rows as
select r.namespace, r.workflow_id, e.run_id, e.seq, x.n, e.at, x.event
from runs r
join events e on e.retention_class = r.retention_class and e.run_id = r.run_id
cross join lateral jsonb_array_elements(e.body::jsonb) with ordinality as x (event, n);

-- Attaches a new leaf or class after moving into it what had fallen into the default partition beside it. Attaching a
-- table that is complete spares writers the exclusive lock that "create table … partition of" takes on the parent.
create function adopt_event_partition(parent regclass, net regclass, leaf regclass, bounds text, condition text)
returns void language plpgsql as $$
begin
    execute format('lock table only %s in access exclusive mode', net);
    execute format('with moved as (delete from only %s where %s returning *)
                    insert into %s select * from moved', net, condition, leaf);
    execute format('alter table %s attach partition %s for values %s', parent, leaf, bounds);
end
$$;

-- Creates the classes that namespaces name and their days from the day before to three days after; returns how many
-- tables it made. Safe to call at any time, by any number of replicas.
create function ensure_event_partitions(around timestamptz) returns integer language plpgsql as $$
declare
    class smallint;
    class_table text;
    day date;
    leaf text;
    low text;
    high text;
    made integer := 0;
begin
    -- One maker at a time; writers that would be held up by a lock this waits for are more important.
    perform pg_advisory_xact_lock(hashtextextended('knarr event partitions', 0));
    perform set_config('lock_timeout', '2s', true);
    for class in select distinct n.retention_class from namespaces n order by 1 loop
        class_table := format('events_c%s', class);
        if to_regclass(class_table) is null then
            execute format('create table %I (like events including defaults including constraints)
                            partition by range (run_id)', class_table);
            execute format('alter table %I add primary key (retention_class, run_id, seq)', class_table);
            execute format('create table %I partition of %I default', class_table || '_default', class_table);
            perform adopt_event_partition('events', 'events_default', class_table::regclass,
                format('in (%s)', class), format('retention_class = %s', class));
            made := made + 1;
        end if;
        for n in -1..3 loop
            day := (around at time zone 'utc')::date + n;
            leaf := format('%s_%s', class_table, to_char(day, 'YYYYMMDD'));
            continue when to_regclass(leaf) is not null;
            -- Outside what a UUIDv7 can express; the default partition takes it.
            continue when extract(epoch from day) not between 0 and 281474000000;
            -- The first 48 bits of a UUIDv7 are milliseconds since the epoch.
            low := rpad(lpad(to_hex((extract(epoch from day) * 1000)::bigint), 12, '0'), 32, '0');
            high := rpad(lpad(to_hex((extract(epoch from day + 1) * 1000)::bigint), 12, '0'), 32, '0');
            -- Insert-only tables that are dropped whole gain nothing from frequent vacuum and analyze.
            execute format('create table %I (like events including defaults including constraints,
                                             primary key (retention_class, run_id, seq))
                            with (autovacuum_vacuum_insert_threshold = 1000000, autovacuum_analyze_threshold = 1000000)',
                           leaf);
            perform adopt_event_partition(class_table::regclass, (class_table || '_default')::regclass, leaf::regclass,
                format('from (%L) to (%L)', low::uuid, high::uuid),
                format('run_id >= %L and run_id < %L', low::uuid, high::uuid));
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$;

-- Makes a statement fail from within, so that all of it rolls back in the same round trip.
create function refuse_commit(code text, reason text) returns integer language plpgsql as $$
begin
    raise exception using errcode = code, message = reason;
end
$$;

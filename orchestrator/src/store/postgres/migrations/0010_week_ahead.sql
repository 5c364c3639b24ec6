-- A week ahead instead of three days, so that whoever holds a lock over a week-end costs nothing: what finds no partition
-- falls into the default one and has to be moved.
-- Creates the classes that namespaces name and their days from the day before to seven days after; returns how many
-- tables it made. Safe to call at any time, by any number of replicas.
create or replace function ensure_event_partitions(around timestamptz) returns integer language plpgsql as $$
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
        for n in -1..7 loop
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

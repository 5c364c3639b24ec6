-- Reading the events of runs from the tables that have them and from no other. A plan that is made once holds every
-- partition of `events`: it is made and locked for each, however few it reads from. These functions sort runs by class and
-- day, which is what `events` is partitioned by, and plan for each such group with its values: planning prunes, and
-- nothing else is opened or locked.

-- The day in a run's id, as the partitions count it.
create function day_of_run(run_id uuid) returns bigint language sql immutable strict parallel safe as $$
    select ('x' || substr(replace(run_id::text, '-', ''), 1, 12))::bit(48)::bigint / 86400000
$$;

-- The transitions of each run with a higher sequence than given, in order.
create function events_after(classes smallint[], run_ids uuid[], after integer[])
returns table (run_id uuid, seq integer, at timestamptz, body text) language plpgsql stable as $$
#variable_conflict use_column
declare
    leaf record;
begin
    for leaf in
        select w.class, array_agg(w.run_id order by w.run_id) as run_ids, array_agg(w.after order by w.run_id) as after
        from unnest(classes, run_ids, after) as w (class, run_id, after)
        group by w.class, day_of_run(w.run_id)
    loop
        return query execute
            'select e.run_id, e.seq, e.at, e.body
             from unnest($4, $5) as w (run_id, after)
             join events e on e.retention_class = $1 and e.run_id between $2 and $3
                 and e.run_id = w.run_id and e.seq > w.after
             order by e.run_id, e.seq'
            using leaf.class, leaf.run_ids[1], leaf.run_ids[cardinality(leaf.run_ids)], leaf.run_ids, leaf.after;
    end loop;
end
$$;

-- How much there is of each run to be loaded: its snapshot, and the transitions after it.
create function run_sizes(ids uuid[])
returns table (run_id uuid, partition smallint, bytes bigint) language plpgsql stable as $$
#variable_conflict use_column
declare
    leaf record;
begin
    for leaf in
        select r.retention_class as class, array_agg(r.run_id order by r.run_id) as run_ids,
               array_agg(r.partition order by r.run_id) as partitions,
               array_agg(coalesce(s.seq, 0) order by r.run_id) as after,
               array_agg(coalesce(octet_length(s.body), 0) order by r.run_id) as snapshots
        from runs r left join snapshots s on s.run_id = r.run_id
        where r.run_id = any(ids)
        group by r.retention_class, day_of_run(r.run_id)
    loop
        return query execute
            'select w.run_id, w.partition, w.snapshot + coalesce(e.bytes, 0)
             from unnest($4, $5, $6, $7) as w (run_id, partition, after, snapshot)
             cross join lateral (
                 select sum(octet_length(e.body)) as bytes from events e
                 where e.retention_class = $1 and e.run_id between $2 and $3 and e.run_id = w.run_id and e.seq > w.after
             ) e'
            using leaf.class, leaf.run_ids[1], leaf.run_ids[cardinality(leaf.run_ids)], leaf.run_ids, leaf.partitions,
                  leaf.after, leaf.snapshots;
    end loop;
end
$$;

-- As before, but each run is looked up by itself. A leaf is not analysed before it has a million rows, so that it is thought to be
-- nearly empty: all that lies between the first run and the last one was read, and hashed, for however few of them.
create or replace function events_after(classes smallint[], run_ids uuid[], after integer[])
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
        -- `offset 0` keeps the planner from making a join of it.
        return query execute
            'select e.run_id, e.seq, e.at, e.body
             from unnest($4, $5) as w (run_id, after)
             cross join lateral (
                 select e.run_id, e.seq, e.at, e.body from events e
                 where e.retention_class = $1 and e.run_id between $2 and $3 and e.run_id = w.run_id and e.seq > w.after
                 order by e.seq
                 offset 0
             ) e'
            using leaf.class, leaf.run_ids[1], leaf.run_ids[cardinality(leaf.run_ids)], leaf.run_ids, leaf.after;
    end loop;
end
$$;

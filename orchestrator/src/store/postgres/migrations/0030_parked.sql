-- For the number of runs that wait for an operator.
create index runs_parked on runs (run_id) where status = 'parked';

-- What waits for an operator, for people and for SQL: the last that was said of it is that it is parked.
create view parked as
select r.namespace, r.workflow_id, r.run_id, r.workflow, r.version, p.kind, p.step, p.at as since, p.error_type, p.message
from runs r
cross join lateral (
    select distinct on (k.kind, b.body ->> 'step')
           k.kind, b.body ->> 'step' as step, k.parks, e.at, b.body #>> '{error,error_type}' as error_type,
           coalesce(b.body #>> '{error,message}', b.body ->> 'reason') as message
    from events e
    cross join lateral jsonb_array_elements(e.body::jsonb) with ordinality as x (event, n)
    cross join lateral jsonb_each(x.event) as b (name, body)
    join (values ('run_parked', 'run', true), ('run_resumed', 'run', false), ('cancel_requested', 'run', false),
                 ('stop_deferred', 'run', false), ('step_parked', 'step', true), ('step_resumed', 'step', false),
                 ('step_resolved', 'step', false), ('step_failed', 'step', false), ('step_completed', 'step', false),
                 ('undo_parked', 'undo', true), ('undo_resumed', 'undo', false), ('undo_resolved', 'undo', false),
                 ('undo_ready', 'undo', false)) as k (name, kind, parks) on k.name = b.name
    where e.retention_class = r.retention_class and e.run_id = r.run_id
    order by k.kind, b.body ->> 'step', e.seq desc, x.n desc
) p
where r.status = 'parked' and p.parks;

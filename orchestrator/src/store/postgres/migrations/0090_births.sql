-- Of a run's birth `events` keeps what the run's row does not say; here it is whole, as it was before.
create or replace view event_rows as
select r.namespace, r.workflow_id, e.run_id, e.seq, x.n, e.at,
       case when x.event ? 'run_started' and not x.event -> 'run_started' ? 'run_id'
            then jsonb_build_object('run_started',
                     jsonb_strip_nulls(jsonb_build_object('run_id', r.run_id, 'namespace', r.namespace,
                                                          'workflow_id', r.workflow_id, 'workflow', r.workflow,
                                                          'request_id', r.request_id)) || (x.event -> 'run_started'))
            else x.event end as event
from runs r
join events e on e.retention_class = r.retention_class and e.run_id = r.run_id
cross join lateral jsonb_array_elements(e.body::jsonb) with ordinality as x (event, n);

-- A run's row is written at its start and at its end, and each time an index is concerned: room left in a page makes none of
-- these updates cheaper, and a tenth of the table was left.
alter table runs set (fillfactor = 100);

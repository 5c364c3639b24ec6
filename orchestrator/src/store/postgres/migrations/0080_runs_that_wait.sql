-- Runs that wait before they begin. One that is `queued` waits until the open run of its workflow id has closed: it is open, and
-- does not have the id. One that is `waiting` has it, and waits for a place among the runs of its workflow. One that is `skipped`
-- has found none.
alter table runs drop constraint runs_check;
alter table runs add constraint runs_check
    check (case when closed_at is null
                then status in ('queued', 'waiting', 'running', 'compensating', 'paused', 'parked')
                else status in ('completed', 'failed', 'compensated', 'compensation_failed', 'cancelled', 'timed_out',
                                'terminated', 'continued_as_new', 'skipped', 'compensating', 'parked') end) not valid;
-- As before, but that those which are queued lie among the closed ones, in the order in which they came.
create unique index runs_by_id on runs
    (namespace, workflow_id,
     (case when closed_at is null and status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
           else run_id end));
drop index runs_by_workflow_id;
alter index runs_by_id rename to runs_by_workflow_id;
-- Who is next under an id, and which ids of a partition somebody waits for. One for both: what is believed to be empty would
-- else be read instead of the one that fits.
create index runs_queued on runs (namespace, workflow_id, run_id) include (partition) where status = 'queued';

-- Who had a workflow id last is not always who has the greatest run id: one that was in line for it is older than the attempts and
-- successors that came before it, and a parent fixes the run id of its child. `tenure` says it where the run id says it wrongly;
-- of one that closed in line it is smaller than that of any that had the id.
alter table runs add column tenure uuid;
-- As before, but that the closed ones lie in the order in which they had the id.
create unique index runs_by_tenure on runs
    (namespace, workflow_id,
     (case when closed_at is null and status <> 'queued' then '00000000-0000-0000-0000-000000000000'::uuid
           else coalesce(tenure, run_id) end));
drop index runs_by_workflow_id;
alter index runs_by_tenure rename to runs_by_workflow_id;
-- For lists, which are in the order of run ids.
create index runs_with_tenure on runs (namespace, workflow_id, run_id) where tenure is not null;

-- Schedules are runs of a workflow whose name no definition can have, and are listed by themselves.
create index runs_schedules on runs (namespace, workflow_id) where workflow = '$schedule' and closed_at is null;
-- The request of an occurrence names its schedule and its nominal time: none is started twice, whatever happens to those who
-- decide it.
create unique index runs_by_occurrence on runs (request_id) where request_id like '$schedule/%';

-- Triggers are runs of a workflow whose name no definition can have, as schedules are. They are listed by themselves, and looked up by
-- whoever takes their partition over, since nothing wakes them but what they read. One index knows both, so that starts do not
-- pay for another.
create index runs_actors on runs (workflow, namespace, workflow_id)
    where closed_at is null and workflow in ('$schedule', '$trigger');
drop index runs_schedules;

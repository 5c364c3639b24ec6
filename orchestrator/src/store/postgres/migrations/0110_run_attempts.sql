-- Runs that are tried again. Each attempt is a run of its own: which one it is (null = the first) and before when it does not begin
-- are known when it is made, and what follows it when it has closed. Whoever speaks to a workflow id sees by that
-- column that another attempt has to be made before anything else.
alter table runs
    add column attempt integer,
    add column begins_at timestamptz,
    add column retried_by uuid;
alter table runs
    add constraint runs_attempts check (attempt > 1) not valid,
    add constraint runs_retried
        check (retried_by is null or closed_at is not null and status in ('failed', 'compensated', 'timed_out')) not valid;

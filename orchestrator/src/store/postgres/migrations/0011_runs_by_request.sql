-- Whether an earlier run had the same workflow id. The request of such a run is looked up by an index; the first run of
-- an id, which is mostly the only one, is found as the first of its id and pays for none.
alter table runs add column again boolean not null default false;
update runs r set again = true
where exists (select from runs e
              where e.namespace = r.namespace and e.workflow_id = r.workflow_id and e.run_id < r.run_id);
create index runs_by_request on runs (namespace, workflow_id, request_id) where again;

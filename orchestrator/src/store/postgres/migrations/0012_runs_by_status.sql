-- For lists of what needs somebody's attention. A run that completes never is in it.
create index runs_by_status on runs (namespace, status, run_id) where status not in ('running', 'completed');

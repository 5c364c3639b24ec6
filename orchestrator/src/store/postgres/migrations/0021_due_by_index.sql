-- Pages of deadlines come from the index alone: with the run's id in it, and in the order in which they are asked for. With a
-- million deadlines a page of 10,000 read 600,000 buffers before.
drop index runs_due;
create index runs_due on runs (partition, wake_at, run_id) where wake_at is not null;

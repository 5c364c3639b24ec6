-- A closed run has a deadline while messages of it are not answered, and one that its parent has undone later runs again
-- without being open: its workflow id is free.
alter table runs drop constraint runs_check;
alter table runs drop constraint runs_check1;
alter table runs add check (case when closed_at is null
                                 then status in ('running', 'compensating', 'paused', 'parked')
                                 else status in ('completed', 'failed', 'compensated', 'compensation_failed', 'cancelled',
                                                 'timed_out', 'terminated', 'continued_as_new',
                                                 'compensating', 'parked') end) not valid;

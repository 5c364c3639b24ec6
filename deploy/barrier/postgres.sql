-- A barrier for participants: what makes a step and its undo safe inside the participant's own database.
--
--     psql -1 -f postgres.sql            -- may be run again at any time
--
-- A handler calls knarr_barrier.enter with its task's idempotency key (`Knarr-Idempotency-Key`, that is
-- <run>/<step path>/do or <run>/<step path>/undo) as the first statement of the transaction that does its work, and does
-- what the verdict says:
--
--     key       verdict      what the handler does
--     …/do      proceed      its work, then knarr_barrier.record, then commit
--     …/do      duplicate    nothing: the work was committed before, and `output` is what was recorded then
--     …/do      refused      nothing: the step has been undone, nobody waits for it; the task has failed, not to be retried
--     …/undo    proceed      undo the work; `output` is what the do recorded, also where the orchestrator never learned of it
--     …/undo    not_done     nothing but commit: there is no work to undo, and none will be let in any more
--     …/undo    duplicate    nothing: undone before, and `output` is what was recorded then
--
-- **Invariants**
-- - One row a step. It is written in the transaction that does the work, so both are there or neither is.
-- - Do and undo of a step are decided by the primary key, not by looking first: of two transactions at once the second waits
--   for the first to end, and is told what became of it. Under READ COMMITTED, PostgreSQL's default, it is always told; under
--   REPEATABLE READ and above it may fail with 40001, like any transaction there, and is repeated with the next attempt.
-- - An undo that was told `not_done` has to commit: its row is what refuses the do that comes late.
--
-- Not here: steps whose do and undo work on different databases.

create schema if not exists knarr_barrier;

create table if not exists knarr_barrier.steps (
    -- <run>/<step path>
    step        text collate "C" primary key check (octet_length(step) between 1 and 2048),
    -- Null: the step was undone before it was done, and never will be.
    done_at     timestamptz,
    undone_at   timestamptz,
    done_output jsonb,
    undo_output jsonb,
    check (done_at is not null or undone_at is not null)
);
-- For knarr_barrier.forget; costs next to nothing when a row is added.
create index if not exists steps_by_age on knarr_barrier.steps using brin (coalesce(undone_at, done_at));

-- Splits a key; `it` names the row.
create or replace function knarr_barrier.parse(idempotency_key text, out it text, out is_undo boolean)
language plpgsql immutable strict parallel safe as $$
begin
    it := regexp_replace(idempotency_key, '/(do|undo)$', '');
    is_undo := idempotency_key like '%/undo';
    if it = '' or it = idempotency_key then
        raise invalid_parameter_value using
            message = format('%L is no idempotency key of a task', left(idempotency_key, 200)),
            hint = 'Pass the value of the header Knarr-Idempotency-Key as it is.';
    end if;
end
$$;

-- The one call. Null, or a text that is no key, is an error.
create or replace function knarr_barrier.enter(idempotency_key text, out verdict text, out output jsonb)
language plpgsql volatile as $$
declare
    key record;
    was_done boolean;
    was_undone boolean;
begin
    select * into key from knarr_barrier.parse(coalesce(idempotency_key, ''));
    -- Another turn is taken only where knarr_barrier.forget removes the row between two statements.
    loop
        if key.is_undo then
            insert into knarr_barrier.steps as s (step, undone_at) values (key.it, now())
            on conflict (step) do update set undone_at = excluded.undone_at where s.undone_at is null
            returning s.done_at is not null, s.done_output into was_done, output;
            if found then
                verdict := case when was_done then 'proceed' else 'not_done' end;
                return;
            end if;
            select s.undo_output into output from knarr_barrier.steps s where s.step = key.it;
            if found then
                verdict := 'duplicate';
                return;
            end if;
        else
            insert into knarr_barrier.steps (step, done_at) values (key.it, now()) on conflict (step) do nothing;
            if found then
                verdict := 'proceed';
                return;
            end if;
            -- A statement of its own, so that it sees what the insert has waited for.
            select s.undone_at is not null, s.done_output into was_undone, output
            from knarr_barrier.steps s where s.step = key.it;
            if found then
                verdict := case when was_undone then 'refused' else 'duplicate' end;
                output := case when was_undone then null else output end;
                return;
            end if;
        end if;
    end loop;
end
$$;

-- Keeps what the handler answers, for whoever is told `duplicate`, and of a do for its undo. Call it in the same transaction,
-- after `proceed`; optional where every answer is the same.
create or replace function knarr_barrier.record(idempotency_key text, output jsonb) returns void
language plpgsql volatile as $$
declare
    key record;
begin
    select * into key from knarr_barrier.parse(coalesce(idempotency_key, ''));
    if key.is_undo then
        update knarr_barrier.steps s set undo_output = record.output where s.step = key.it and s.undone_at is not null;
    else
        update knarr_barrier.steps s set done_output = record.output where s.step = key.it and s.undone_at is null;
    end if;
    if not found then
        raise object_not_in_prerequisite_state using
            message = format('%L has not passed the barrier', left(idempotency_key, 200)),
            hint = 'Call knarr_barrier.enter first, in the same transaction.';
    end if;
end
$$;

-- Retention: removes steps that were last touched longer ago than that, at most so many, and says how many it removed; call
-- it again until it says 0. `older_than` has to be longer than any run of the workflows concerned can be open, parked time
-- included: for a step that was forgotten an undo is told `not_done`, and a repeated do works a second time. A day is the
-- least that is accepted; 90 days are right for most.
create or replace function knarr_barrier.forget(older_than interval, at_most integer default 10000) returns bigint
language plpgsql volatile as $$
declare
    removed bigint;
begin
    if older_than is null or older_than < interval '1 day' then
        raise invalid_parameter_value using
            message = 'steps younger than a day are not forgotten',
            hint = 'Name an interval that is longer than any run can be open, such as 90 days.';
    end if;
    delete from knarr_barrier.steps where step in (
        select s.step from knarr_barrier.steps s
        where coalesce(s.undone_at, s.done_at) < now() - older_than
        limit greatest(at_most, 0)
        for update skip locked
    );
    get diagnostics removed = row_count;
    return removed;
end
$$;

-- The version that a start takes which names none, where an operator has said so; else it is the highest.
create table definition_defaults (
    namespace text        collate "C" not null,
    workflow  text        collate "C" not null,
    version   integer     not null,
    set_at    timestamptz not null,
    set_by    text,
    reason    text,
    primary key (namespace, workflow),
    foreign key (namespace, workflow, version) references definitions (namespace, workflow, version)
);

-- Whether changes of the status of a namespace's runs are published.
alter table namespaces add column events boolean not null default false;

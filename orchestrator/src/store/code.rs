//! Codes of what can be wrong with PostgreSQL when the store is made (`KN0310`–`KN0319`).

use knarr_schemas::codes;

codes! {
    SERVER_TOO_OLD = "KN0310", "postgres_too_old",
        "The PostgreSQL server is too old.",
        "Upgrade it to version 15 or newer, or name another with --database-url.";
    FORMAT_TOO_NEW = "KN0311", "format_too_new",
        "The cluster writes a storage format that this knarr cannot read.",
        "Run the version that the other replicas run, or a newer one.";
    NAME_TAKEN = "KN0312", "replica_name_taken",
        "A replica of this name is running.",
        "Give this one another name with --replica-name.";
    BAD_ADDRESS = "KN0313", "postgres_address",
        "The address of PostgreSQL cannot be read.",
        "Write postgres://user:password@host:port/database.";
    PARTITIONS = "KN0314", "partition_count",
        "A cluster cannot have so many partitions.",
        "Choose 1 to 32,766 with --partitions; 64 are right for nearly everybody.";
    MIGRATION = "KN0315", "migration_failed",
        "The database's schema cannot be brought up to date.",
        "Check that the user of --database-url owns the schema, and that no newer knarr has migrated it.";
}

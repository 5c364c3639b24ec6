//! Codes of what can be wrong with NATS when the bus is made (`KN0301`–`KN0309`).

use knarr_schemas::codes;

codes! {
    NO_SERVER = "KN0301", "nats_absent",
        "No NATS server answers at the address.",
        "Start nats-server with JetStream (`nats-server -js`), or correct --nats-url.";
    CREDENTIALS = "KN0302", "nats_credentials",
        "NATS refuses the credentials, or their file cannot be read.",
        "Check user, token or .creds file, and that the server's account knows them.";
    BAD_ADDRESS = "KN0303", "nats_address",
        "An address of NATS cannot be read.",
        "Write nats://host:port, several separated by commas.";
    NO_JETSTREAM = "KN0304", "jetstream_disabled",
        "JetStream is switched off, in the NATS server or for its account.",
        "Start nats-server with `-js` or a `jetstream {}` block in its configuration, and enable it for the account.";
    TOO_OLD = "KN0305", "nats_too_old",
        "The NATS server is too old and would silently ignore settings.",
        "Run nats-server 2.12 or later; 2.15 is recommended.";
    REFUSED = "KN0306", "stream_refused",
        "NATS refuses a stream or consumer for what it says.",
        "Remove what stands in its way (a stream with the same subjects, a limit of the account), or change the setting named.";
    OTHER_CLUSTER = "KN0307", "other_cluster",
        "The log in NATS belongs to another cluster.",
        "Give each cluster its own NATS account, or delete the stream if it is left over.";
    IGNORED = "KN0308", "setting_ignored",
        "NATS did not keep a setting that Knarr needs.",
        "Run nats-server 2.12 or later, or lift the account's limit.";
    OTHER_DATABASE = "KN0309", "other_database",
        "The streams in NATS name another cluster than the database does.",
        "Correct the address of NATS or of PostgreSQL; if the other cluster is given up, delete its streams.";
}

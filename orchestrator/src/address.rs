//! Addresses of servers as they may be shown: who connects, and with which password, is left out.

/// One address, or several separated by commas, without user, password and parameters. Where it is not clear what is a
/// password, as in an address that is not right, less is shown rather than more.
pub(crate) fn without_secrets(addresses: &str) -> String {
    // Also a password may hold a comma.
    match (addresses.split_once("://"), addresses.matches("://").count()) {
        (Some((scheme, rest)), 1) => format!("{scheme}://{}", host(rest)),
        _ => addresses
            .split(',')
            .map(|one| match one.trim().split_once("://") {
                Some((scheme, rest)) => format!("{scheme}://{}", host(rest)),
                None => host(one.trim()).to_owned(),
            })
            .collect::<Vec<_>>()
            .join(","),
    }
}

fn host(rest: &str) -> &str {
    let rest = match rest.rsplit_once('@') {
        // The `@` may be in a parameter, or the rest in a password.
        Some((before, _)) if before.contains(['/', '?', '#']) => "…",
        Some((_, host)) => host,
        None => rest,
    };
    rest.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (given, shown) in [
            ("nats://u:p@host:4222", "nats://host:4222"),
            ("u:p@host", "host"),
            ("nats://host", "nats://host"),
            ("nats://u:p@a:1, token@b:2,tls://c", "nats://a:1,b:2,tls://c"),
            ("nats://u:p@a:1,nats://u:p@b:2", "nats://a:1,nats://b:2"),
            ("postgres://u:p,q@host/d", "postgres://host/d"),
            ("postgres://host:5432/d?user=u&password=p", "postgres://host:5432/d"),
            ("postgres://u:p%40@host/d", "postgres://host/d"),
            ("postgres://h/d?password=p@q", "postgres://…"),
            ("postgres://u:p/q?r@h/d", "postgres://…"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(given), shown, "{given}");
        }
    }
}

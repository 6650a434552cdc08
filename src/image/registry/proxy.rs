//! Is a proxy between us and a host? `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, as Go's programs read them.

use super::url::{Url, is_loopback, split_port};
use std::net::IpAddr;

/// The proxy's URL, or none. `get` reads the environment; lower-case names count where upper-case ones are not set.
pub fn choose(url: &Url, get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let get = |name: &str| {
        let value = get(name).or_else(|| get(&name.to_ascii_lowercase()));
        value.filter(|value| !value.is_empty())
    };
    // What is on this machine is not asked of another.
    if is_loopback(&url.authority) {
        return None;
    }
    let excepted =
        get("NO_PROXY").is_some_and(|list| list.split(',').any(|entry| matches(entry.trim(), url)));
    if excepted {
        return None;
    }
    get(if url.https {
        "HTTPS_PROXY"
    } else {
        "HTTP_PROXY"
    })
}

/// One entry of `NO_PROXY`: `*`, a network, or a host with what is below it; a port narrows it.
fn matches(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, bits)) = entry.split_once('/') {
        return in_network(url.host(), network, bits).unwrap_or(false);
    }
    // A bare IPv6 address has colons, but no port.
    let (host, port) = match entry.parse::<IpAddr>() {
        Ok(_) => (entry, None),
        Err(_) => split_port(entry),
    };
    if host.is_empty() || port.is_some_and(|port| port != url.port()) {
        return false;
    }
    if let (Ok(one), Ok(other)) = (host.parse::<IpAddr>(), url.host().parse::<IpAddr>()) {
        return one == other;
    }
    let host = host.trim_start_matches('*').to_ascii_lowercase();
    let domain = host.trim_start_matches('.');
    let below = url
        .host()
        .strip_suffix(domain)
        .is_some_and(|sub| sub.ends_with('.'));
    below || !host.starts_with('.') && url.host() == domain
}

fn in_network(host: &str, network: &str, bits: &str) -> Option<bool> {
    let bits: u32 = bits.parse().ok()?;
    let (host, network, width) = match (host.parse().ok()?, network.parse().ok()?) {
        (IpAddr::V4(host), IpAddr::V4(network)) => {
            (host.to_bits().into(), network.to_bits().into(), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(network)) => (host.to_bits(), network.to_bits(), 128),
        _ => return None,
    };
    let free = u32::checked_sub(width, bits)?;
    let cut = |address: u128| address.checked_shr(free).unwrap_or(0);
    Some(cut(host) == cut(network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_chooses_the_proxy_and_exceptions_win() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("https://r.example/", "", Some("s")),
            ("http://r.example/", "", Some("p")),
            ("https://localhost:5000/", "", None),
            ("https://127.0.0.1/", "", None),
            ("https://r.example/", "*", None),
            ("https://r.example/", "example", None),
            ("https://r.example/", "other, r.example", None),
            ("https://r.example/", ".example", None),
            ("https://r.example/", "*.example", None),
            ("https://example/", ".example", Some("s")),
            ("https://bad-r.example/", "r.example", Some("s")),
            ("https://r.example/", "r.example:443", None),
            ("https://r.example/", "r.example:80", Some("s")),
            ("https://10.1.2.3/", "10.0.0.0/8", None),
            ("https://11.1.2.3/", "10.0.0.0/8", Some("s")),
            ("https://[fd00::5]/", "fd00::/16", None),
            ("https://[fd00::5]/", "fd00::5", None),
            ("https://10.1.2.3/", "0.0.0.0/0", None),
            ("https://10.1.2.3/", "0.0.0.0/99", Some("s")),
        ];
        for (url, except, expected) in cases {
            let get = |name: &str| match name {
                "HTTPS_PROXY" => Some("s".to_owned()),
                "http_proxy" => Some("p".to_owned()),
                "NO_PROXY" => Some((*except).to_owned()),
                _ => None,
            };
            assert_eq!(
                choose(&Url::parse(url).unwrap(), &get).as_deref(),
                *expected,
                "{url} {except}"
            );
        }
    }
}

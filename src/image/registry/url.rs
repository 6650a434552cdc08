//! Which server, and what of it? Just what a registry's answers need of RFC 3986: absolute http and https URLs, and
//! a Location resolved against one.

use anyhow::{Context, Result, ensure};
use std::fmt;
use ureq::http::Uri;

/// An absolute URL, without user information and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub https: bool,
    /// Host, in lower case, and port if it was given: `r.example:5000`, `[::1]:5000`.
    pub authority: String,
    /// From the first slash on, with the query.
    pub path: String,
}

impl Url {
    /// # Errors
    /// Another scheme, no host, or a name and password before the host, where they would go astray.
    pub fn parse(text: &str) -> Result<Url> {
        let context = || format!("URL {text:?}");
        let bare = text.split_once('#').map_or(text, |(before, _)| before);
        let uri: Uri = bare.parse().with_context(context)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => anyhow::bail!("{}: neither https nor http", context()),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // It becomes a directory's name, below certs.d.
        ensure!(
            !authority.trim_matches('.').is_empty(),
            "{}: no host",
            context()
        );
        ensure!(
            !authority.contains('@'),
            "{}: a name or password before the host",
            context()
        );
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url {
            https,
            authority: authority.to_ascii_lowercase(),
            path: format!("{slash}{path}"),
        })
    }

    /// Where a Location leads from here.
    pub fn join(&self, location: &str) -> Result<Url> {
        let scheme = if self.https { "https" } else { "http" };
        let absolute = if location.contains("://") && !location.starts_with(['/', '?']) {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority)
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let dir = match location.starts_with('?') {
                true => path,
                false => path
                    .rsplit_once('/')
                    .map_or("/", |(dir, _)| &path[..=dir.len()]),
            };
            format!("{scheme}://{}{dir}{location}", self.authority)
        };
        Url::parse(&absolute)
    }

    /// With one parameter more; the value is escaped.
    pub fn with_query(mut self, key: &str, value: &str) -> Url {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{joint}{key}={}", self.path, escape(value));
        self
    }

    /// Scheme, host and port are the same: what one is told the other may know.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.https == other.https && self.host() == other.host() && self.port() == other.port()
    }

    /// Host without port, an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        split_port(&self.authority).0
    }

    pub fn port(&self) -> u16 {
        split_port(&self.authority)
            .1
            .unwrap_or(if self.https { 443 } else { 80 })
    }
}

/// Without the query, which may hold a signature that is as good as a password.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(
            f,
            "{}://{}{path}",
            if self.https { "https" } else { "http" },
            self.authority
        )
    }
}

/// Does this registry or host name (with or without a port) lead to this machine itself?
pub fn is_loopback(authority: &str) -> bool {
    let host = split_port(authority).0;
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        // RFC 6761 section 6.3: the name and all below it.
        Err(_) => {
            host.eq_ignore_ascii_case("localhost")
                || host.to_ascii_lowercase().ends_with(".localhost")
        }
    }
}

/// Host (without brackets) and port.
pub fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some((address, port)) = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (
            address,
            port.strip_prefix(':').and_then(|port| port.parse().ok()),
        );
    }
    match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (authority, None),
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(byte as char)
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_against_where_it_was_said() {
        let base = Url::parse("https://R.example:5000/v2/a/blobs/uploads/?x=1").unwrap();
        for (location, expected) in [
            ("https://o.example/p?q=1#f", "https://o.example|/p?q=1"),
            ("http://o.example", "http://o.example|/"),
            ("//o.example/p", "https://o.example|/p"),
            ("/p/q", "https://r.example:5000|/p/q"),
            (
                "id?state=2",
                "https://r.example:5000|/v2/a/blobs/uploads/id?state=2",
            ),
            (
                "?state=2",
                "https://r.example:5000|/v2/a/blobs/uploads/?state=2",
            ),
            ("/p?u=http://x/", "https://r.example:5000|/p?u=http://x/"),
        ] {
            let url = base.join(location).unwrap();
            let scheme = if url.https { "https" } else { "http" };
            assert_eq!(
                format!("{scheme}://{}|{}", url.authority, url.path),
                expected,
                "{location}"
            );
        }
    }

    #[test]
    fn what_is_no_web_address_is_refused() {
        for text in [
            "ftp://a/",
            "file:///etc/passwd",
            "/v2/",
            "https://",
            "https://u:p@h/",
            "https://../x",
            "https://a b/",
            "",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_default_port_is_the_same_origin_another_scheme_is_not() {
        let url = |text| Url::parse(text).unwrap();
        let here = url("https://r.example/v2/");
        assert!(here.same_origin(&url("https://R.example:443/x")));
        for other in [
            "http://r.example/",
            "https://r.example:444/",
            "https://x.r.example/",
        ] {
            assert!(!here.same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn a_printed_url_has_no_query() {
        let url = Url::parse("https://cdn.example/b")
            .unwrap()
            .with_query("sig", "a b&c");
        assert_eq!(url.path, "/b?sig=a%20b%26c");
        assert_eq!(url.to_string(), "https://cdn.example/b");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (name, expected) in [
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("a.localhost", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
            ("10.0.0.1:5000", false),
            ("[fe80::1]", false),
        ] {
            assert_eq!(is_loopback(name), expected, "{name}");
        }
    }
}

//! What does a name such as `alpine`, `localhost:5000/a/b:1` or `[::1]:5000/a@sha256:…` refer to?
//!
//! The grammar is that of the distribution project's reference package, which docker, podman and
//! containerd share; what docker refuses is refused here in its words. Pure: no registry is asked.

use super::digest::Digest;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::fmt;
use std::str::FromStr;

/// The registry of a name that has none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Its other names: where docker keeps its credentials, and who answers for it.
pub const DEFAULT_REGISTRY_NAMES: [&str; 2] = ["index.docker.io", DEFAULT_REGISTRY_HOST];
pub const DEFAULT_REGISTRY_HOST: &str = "registry-1.docker.io";
/// Where a one-word name of the default registry lives.
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Registry and repository together, as the grammar's authors limit it.
const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// An image's name: where it lives, and which version of it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host and port as typed: `docker.io`, `localhost:5000`, `[::1]:5000`.
    pub registry: String,
    /// Path within the registry: `library/alpine`.
    pub repository: String,
    /// Absent only where there is a digest.
    pub tag: Option<String>,
    /// Wins over the tag: the tag is then only said, never asked for.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Registry and repository, the key of whatever is kept per image name.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// As short as docker prints it: without the default registry and its `library/`, with the tag.
    pub fn familiar(&self) -> String {
        let name = self.familiar_name();
        self.with_version(name)
    }

    /// [`Reference::familiar`] without tag and digest.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        let short = self.repository.strip_prefix(DEFAULT_NAMESPACE);
        short
            .filter(|rest| !rest.contains('/'))
            .unwrap_or(&self.repository)
            .to_owned()
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        }
    }

    fn with_version(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

/// The whole name, which parses back to the same reference.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_version(self.name()))
    }
}

impl FromStr for Reference {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // One link, since clap shows only the last of a chain.
        parse(text).map_err(|error| anyhow!("image name {text:?}: {error:#}"))
    }
}

fn parse(text: &str) -> Result<Reference> {
    ensure!(!text.is_empty(), "invalid reference format: it is empty");
    ensure!(
        !(text.len() == 64 && text.bytes().all(is_hex)),
        "invalid repository name, cannot specify 64-byte hexadecimal strings"
    );
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().context("after the @")?)),
        None => (text, None),
    };
    let (registry, rest) = split_registry(rest);
    // A colon after the last slash begins the tag: the registry's own, before its port, is cut off.
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let registry = match registry {
        None => DEFAULT_REGISTRY,
        Some(registry) if DEFAULT_REGISTRY_NAMES.contains(&registry) => DEFAULT_REGISTRY,
        Some(registry) => registry,
    };
    check_registry(registry)?;
    check_path(path)?;
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{DEFAULT_NAMESPACE}{path}")
    } else {
        path.to_owned()
    };
    ensure!(
        registry.len() + 1 + repository.len() <= NAME_MAX,
        "repository name must not be more than {NAME_MAX} characters"
    );
    let tag = tag.map(str::to_owned);
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.or_else(|| digest.is_none().then(|| DEFAULT_TAG.to_owned())),
        digest,
    })
}

/// The first component names a registry if it could not be a path: docker's rule.
fn split_registry(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

/// Is this a registry's name: `host`, `host:port`, an IPv4 address, or an IPv6 address in brackets?
///
/// # Errors
/// What is wrong with it, in one line.
pub fn check_registry(registry: &str) -> Result<()> {
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest
                .split_once(']')
                .context("invalid reference format: an IPv6 address ends with ]")?;
            ensure!(
                address.parse::<std::net::Ipv6Addr>().is_ok(),
                "invalid reference format: [{address}] is not an IPv6 address"
            );
            ensure!(
                port.is_empty() || port.starts_with(':'),
                "invalid reference format: after ] comes :PORT, not {port:?}"
            );
            (None, port.strip_prefix(':'))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    if let Some(host) = host {
        let legal = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        ensure!(
            host.split('.').all(legal),
            "invalid reference format: {host:?} is not a host name"
        );
    }
    if let Some(port) = port {
        ensure!(
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
            "invalid reference format: {port:?} is not a port"
        );
    }
    Ok(())
}

/// `[a-z0-9]+` joined by one `.`, one or two `_`, or any number of `-`; such components joined by `/`.
fn check_path(path: &str) -> Result<()> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        bail!("invalid reference format: repository name ({path}) must be lowercase");
    }
    let legal = path.split('/').all(|component| {
        let mut rest = component.as_bytes();
        loop {
            let word = rest.iter().take_while(|byte| is_word(byte)).count();
            rest = &rest[word..];
            let joint = rest.iter().take_while(|byte| !is_word(byte)).count();
            if word == 0 {
                return false;
            }
            if joint == 0 {
                return true;
            }
            match &rest[..joint] {
                b"." | b"_" | b"__" => {}
                dashes if dashes.iter().all(|byte| *byte == b'-') => {}
                _ => return false,
            }
            rest = &rest[joint..];
        }
    });
    ensure!(
        legal,
        "invalid reference format: {path:?} is not a repository name"
    );
    Ok(())
}

/// Is this a tag: letters, digits, `_`, `.` and `-`, not beginning with the last two, at most 128 bytes?
///
/// # Errors
/// Says so, with the tag.
pub fn check_tag(tag: &str) -> Result<()> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let legal = tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'));
    ensure!(legal, "invalid reference format: {tag:?} is not a tag");
    Ok(())
}

fn is_word(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_name_is_completed_as_docker_completes_it() {
        let digest = format!("sha256:{HEX}");
        let cases: &[(&str, &str, &str)] = &[
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            (
                "library/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            (
                "library/me/app",
                "docker.io/library/me/app:latest",
                "library/me/app:latest",
            ),
            (
                "docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            (
                "index.docker.io/alpine",
                "docker.io/library/alpine:latest",
                "alpine:latest",
            ),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            (
                "localhost:5000/a",
                "localhost:5000/a:latest",
                "localhost:5000/a:latest",
            ),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000",
                "localhost:5000",
            ),
            (
                "127.0.0.1:5000/a/b/c:t",
                "127.0.0.1:5000/a/b/c:t",
                "127.0.0.1:5000/a/b/c:t",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[fe80::1]/a:t", "[fe80::1]/a:t", "[fe80::1]/a:t"),
            (
                "registry.example/a",
                "registry.example/a:latest",
                "registry.example/a:latest",
            ),
            ("Upper/a", "Upper/a:latest", "Upper/a:latest"),
            (
                "a--b__c/d.e---f",
                "docker.io/a--b__c/d.e---f:latest",
                "a--b__c/d.e---f:latest",
            ),
            ("a:_T.1-x", "docker.io/library/a:_T.1-x", "a:_T.1-x"),
            (
                "r.example:80/a:t@D",
                "r.example:80/a:t@D",
                "r.example:80/a:t@D",
            ),
            ("a@D", "docker.io/library/a@D", "a@D"),
        ];
        for (typed, whole, familiar) in cases {
            let put = |text: &str| text.replace('D', &digest);
            let parsed: Reference = put(typed).parse().unwrap();
            assert_eq!(parsed.to_string(), put(whole), "{typed}");
            assert_eq!(parsed.familiar(), put(familiar), "{typed}");
            assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed);
        }
    }

    #[test]
    fn a_registry_is_asked_for_the_digest_before_the_tag() {
        let asked = |text: &str| text.parse::<Reference>().unwrap().version();
        assert_eq!(asked("a"), "latest");
        assert_eq!(asked("a:t"), "t");
        assert_eq!(asked(&format!("a:t@sha256:{HEX}")), format!("sha256:{HEX}"));
    }

    #[test]
    fn what_docker_refuses_is_refused_with_the_reason() {
        let long = format!("a/{}", "b".repeat(250));
        let tag = format!("a:{}", "t".repeat(129));
        let cases: &[(&str, &str)] = &[
            ("", "invalid reference format: it is empty"),
            (
                "UPPER",
                "invalid reference format: repository name (UPPER) must be lowercase",
            ),
            (
                "r.example/aB",
                "invalid reference format: repository name (aB) must be lowercase",
            ),
            (
                HEX,
                "invalid repository name, cannot specify 64-byte hexadecimal strings",
            ),
            (
                "a//b",
                "invalid reference format: \"a//b\" is not a repository name",
            ),
            (
                "../x",
                "invalid reference format: \"..\" is not a host name",
            ),
            (
                "a/../x",
                "invalid reference format: \"a/../x\" is not a repository name",
            ),
            (
                "/a",
                "invalid reference format: \"/a\" is not a repository name",
            ),
            (
                "a/",
                "invalid reference format: \"a/\" is not a repository name",
            ),
            (
                "-a",
                "invalid reference format: \"-a\" is not a repository name",
            ),
            (
                "a-",
                "invalid reference format: \"a-\" is not a repository name",
            ),
            (
                "a___b",
                "invalid reference format: \"a___b\" is not a repository name",
            ),
            (
                "a._b",
                "invalid reference format: \"a._b\" is not a repository name",
            ),
            (
                "a b",
                "invalid reference format: \"a b\" is not a repository name",
            ),
            (
                "http://r.example/a",
                "invalid reference format: \"\" is not a port",
            ),
            ("a:", "invalid reference format: \"\" is not a tag"),
            ("a:-t", "invalid reference format: \"-t\" is not a tag"),
            (
                "a:t:u",
                "invalid reference format: \"a:t\" is not a repository name",
            ),
            (
                "[::1/a",
                "invalid reference format: an IPv6 address ends with ]",
            ),
            (
                "[::zz]/a",
                "invalid reference format: [::zz] is not an IPv6 address",
            ),
            (
                "[::1]5000/a",
                "invalid reference format: after ] comes :PORT, not \"5000\"",
            ),
            (
                "r.example:99999/a",
                "invalid reference format: \"99999\" is not a port",
            ),
            (
                "-r.example/a",
                "invalid reference format: \"-r.example\" is not a host name",
            ),
            (
                &long,
                "repository name must not be more than 255 characters",
            ),
            (
                &tag,
                &format!(
                    "invalid reference format: {:?} is not a tag",
                    "t".repeat(129)
                ),
            ),
        ];
        for (typed, reason) in cases {
            let error = typed.parse::<Reference>().unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                format!("image name {typed:?}: {reason}")
            );
        }
    }

    #[test]
    fn a_bad_digest_never_becomes_a_reference() {
        for digest in [
            "",
            "sha256:",
            "sha256:aa",
            "sha256:../../etc/passwd",
            "md5:00",
            HEX,
        ] {
            assert!(
                format!("a@{digest}").parse::<Reference>().is_err(),
                "{digest}"
            );
        }
    }
}

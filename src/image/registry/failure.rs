//! What went wrong between us and a registry, and may it be tried again?

use super::url::Url;
use crate::image::show::printable;
use anyhow::anyhow;
use std::io::ErrorKind;
use std::time::Duration;
use ureq::http::HeaderMap;

/// As many times a request is tried without getting further.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// A server that wants us to come back later than this is told as an error.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);
/// Of a registry's own words, so much is repeated.
const WORDS_MAX: usize = 300;

#[derive(Debug)]
pub struct Failure {
    pub error: anyhow::Error,
    pub again: Again,
    /// Of the answer, where there was one.
    pub status: Option<u16>,
    /// A server without TLS would have caused this.
    pub no_tls: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Never,
    /// The connection broke, or the server is in trouble.
    Later,
    /// It said when.
    After(Duration),
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn later(error: anyhow::Error) -> Failure {
        Failure {
            error,
            again: Again::Later,
            status: None,
            no_tls: false,
        }
    }

    pub fn context(self, what: impl std::fmt::Display + Send + Sync + 'static) -> Failure {
        Failure {
            error: self.error.context(what),
            ..self
        }
    }

    /// Of a request that got no answer. `reached`: this server has answered before, so that it is there.
    pub fn of_transport(error: ureq::Error, verb: &str, url: &Url, reached: bool) -> Failure {
        let again = match &error {
            ureq::Error::HostNotFound => later_if(reached),
            ureq::Error::Io(io) => of_io(io, reached),
            ureq::Error::Rustls(tls) => of_tls(tls, reached),
            ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed | ureq::Error::Protocol(_) => {
                Again::Later
            }
            _ => Again::Never,
        };
        let hint = certificate_hint(&error, &url.authority);
        let reason = match &error {
            ureq::Error::HostNotFound => format!("no such host {:?}", url.host()),
            ureq::Error::Io(io) => io.to_string(),
            other => other.to_string(),
        };
        Failure {
            error: anyhow!("{verb} {url}: {}{hint}", printable(&reason)),
            again,
            status: None,
            no_tls: false,
        }
    }

    /// Of a connection that broke while the answer's content came.
    pub fn of_reading(error: std::io::Error, url: &Url) -> Failure {
        Failure {
            again: of_io(&error, true),
            error: anyhow!("GET {url}: {error}"),
            status: None,
            no_tls: false,
        }
    }

    /// Of an answer whose status is not what it should be; `body`: the beginning of its content.
    pub fn of_status(
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
        verb: &str,
        url: &Url,
    ) -> Failure {
        let again = match status {
            408 | 425 | 429 | 500 | 502..=504 => match retry_after(headers) {
                Some(pause) if pause > LONGEST_RETRY_AFTER => Again::Never,
                Some(pause) => Again::After(pause),
                None => Again::Later,
            },
            _ => Again::Never,
        };
        let words = match words(body) {
            words if words.is_empty() => String::new(),
            words => format!(" ({words})"),
        };
        let hint = match (status, retry_after(headers)) {
            (401 | 403, _) => format!(
                "; is it there, and are you logged in? (sc-image login {})",
                url.authority
            ),
            (429, Some(pause)) => format!("; try again in {} s", pause.as_secs()),
            (429, None) => "; too many requests: log in, or try again later".to_owned(),
            _ => String::new(),
        };
        Failure {
            error: anyhow!("{verb} {url}: status {status}{words}{hint}"),
            again,
            status: Some(status),
            no_tls: false,
        }
    }
}

/// An error of ours, such as a full disk, does not go away.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure {
            error,
            again: Again::Never,
            status: None,
            no_tls: false,
        }
    }
}

impl From<Failure> for anyhow::Error {
    fn from(failure: Failure) -> anyhow::Error {
        failure.error
    }
}

/// Tries until it succeeds, fails for good, or has failed [`ATTEMPTS`] times without getting further.
/// `progress` grows when it does. `tell` is told of each pause.
pub fn retrying<T>(
    mut attempt: impl FnMut() -> Outcome<T>,
    progress: impl Fn() -> u64,
    tell: &dyn Fn(&str),
) -> Outcome<T> {
    let (mut failed, mut reached) = (0, progress());
    loop {
        let failure = match attempt() {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        // Some bytes a time would be a way to keep us busy for ever.
        if progress() >= reached.saturating_add(64 << 10) {
            failed = 0;
            reached = progress();
        }
        failed += 1;
        let pause = match failure.again {
            Again::Never => return Err(failure),
            Again::Later => pause(failed),
            Again::After(pause) => pause,
        };
        if failed >= ATTEMPTS {
            return Err(failure.context(format!("tried {failed} times")));
        }
        tell(&format!(
            "{:#}; again in {:.1} s",
            failure.error,
            pause.as_secs_f64()
        ));
        std::thread::sleep(pause);
    }
}

/// Doubles with each failure, and differs between processes, so that not all come back at once.
fn pause(failed: u32) -> Duration {
    let full = FIRST_PAUSE
        .saturating_mul(1 << failed.min(16).saturating_sub(1))
        .min(LONGEST_PAUSE);
    full * (75 + std::process::id() % 50) / 100
}

fn later_if(reached: bool) -> Again {
    if reached { Again::Later } else { Again::Never }
}

fn of_io(error: &std::io::Error, reached: bool) -> Again {
    if let Some(tls) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        return of_tls(tls, reached);
    }
    if let Some(ureq::Error::Rustls(tls)) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return of_tls(tls, reached);
    }
    if is_lookup(error) {
        return later_if(reached);
    }
    match error.kind() {
        // A name mistyped is told at once; a server that restarts is waited for.
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable => later_if(reached),
        ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported => {
            Again::Never
        }
        _ => Again::Later,
    }
}

fn of_tls(error: &rustls::Error, reached: bool) -> Again {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            Again::Never
        }
        // Bytes that changed on their way.
        _ => later_if(reached),
    }
}

fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(tls) => Some(tls),
        ureq::Error::Io(io) => io.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// What helps against a certificate that is not accepted, for the end of an error.
fn certificate_hint(error: &ureq::Error, authority: &str) -> String {
    match tls_error(error) {
        // Go's programs take a CA's certificate for a server's own; webpki, as RFC 5280 has it, does not.
        Some(rustls::Error::InvalidCertificate(why))
            if format!("{why:?}").contains("CaUsedAsEndEntity") =>
        {
            "; it is a CA's certificate: the server needs one of its own (basicConstraints CA:FALSE)"
                .to_owned()
        }
        Some(rustls::Error::InvalidCertificate(_)) => format!(
            "; if {authority} has a CA of its own, put it into certs.d/{authority}/ca.crt (containers-certs.d(5))"
        ),
        _ => String::new(),
    }
}

/// Of names that do not resolve std says no more than this.
fn is_lookup(error: &std::io::Error) -> bool {
    error
        .to_string()
        .starts_with("failed to lookup address information")
}

/// Would a server without TLS make a client that begins with it fail so?
pub fn looks_like_no_tls(error: &ureq::Error) -> bool {
    match (tls_error(error), error) {
        (Some(tls), _) => matches!(tls, rustls::Error::InvalidMessage(_)),
        (None, ureq::Error::Io(io)) => matches!(
            io.kind(),
            ErrorKind::ConnectionReset
                | ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionAborted
        ),
        _ => false,
    }
}

/// `Retry-After` in seconds; dates, which registries do not send, are not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get("retry-after")?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// What a registry says of itself: distribution-spec's `errors[]`, or the text of something else.
fn words(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => {
            let first = &json["errors"][0];
            let parts = [
                &first["code"],
                &first["message"],
                &json["error"],
                &json["message"],
                &json["details"],
            ];
            parts
                .iter()
                .filter_map(|part| part.as_str())
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(": ")
        }
        // A page of HTML explains nothing in one line.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let mut text = printable(&text);
    if text.len() > WORDS_MAX {
        let cut = (0..=WORDS_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let url = Url::parse("https://r.example/v2/a?token=secret").unwrap();
        let after = |seconds| Again::After(Duration::from_secs(seconds));
        for (status, retry_after, expected) in [
            (404, None, Again::Never),
            (401, None, Again::Never),
            (403, None, Again::Never),
            (400, None, Again::Never),
            (500, None, Again::Later),
            (501, None, Again::Never),
            (503, None, Again::Later),
            (429, None, Again::Later),
            (429, Some("3"), after(3)),
            (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Again::Later),
            (429, Some("86400"), Again::Never),
        ] {
            let pairs: Vec<_> = retry_after
                .map(|value| ("retry-after", value))
                .into_iter()
                .collect();
            let failure = Failure::of_status(status, &headers(&pairs), b"", "GET", &url);
            assert_eq!(failure.again, expected, "{status}");
        }
    }

    #[test]
    fn an_error_has_the_registrys_words_and_no_query() {
        let url = Url::parse("https://r.example/v2/a?token=secret").unwrap();
        let of = |status, body: &str| {
            let failure = Failure::of_status(status, &headers(&[]), body.as_bytes(), "GET", &url);
            format!("{:#}", failure.error)
        };
        assert_eq!(
            of(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#
            ),
            "GET https://r.example/v2/a: status 404 (MANIFEST_UNKNOWN: manifest unknown)"
        );
        assert_eq!(
            of(502, "<html>nginx</html>"),
            "GET https://r.example/v2/a: status 502"
        );
        assert_eq!(
            of(500, "a\x1b[2J"),
            "GET https://r.example/v2/a: status 500 (a\\u{1b}[2J)"
        );
        assert_eq!(
            of(401, ""),
            "GET https://r.example/v2/a: status 401; is it there, and are you logged in? (sc-image login r.example)"
        );
        assert!(of(500, &"é".repeat(1000)).len() < 400);
    }

    #[test]
    fn attempts_are_counted_only_while_nothing_gets_further() {
        let after = Again::After(Duration::ZERO);
        let fail = || Failure {
            again: after,
            ..Failure::later(anyhow!("no"))
        };
        let calls = std::cell::Cell::new(0_u32);
        let outcome: Outcome<()> = retrying(
            || (calls.set(calls.get() + 1), Err(fail())).1,
            || 0,
            &|_| {},
        );
        assert_eq!(
            (calls.get(), outcome.unwrap_err().error.to_string()),
            (5, "tried 5 times".to_owned())
        );
        calls.set(0);
        let done = retrying(
            || {
                calls.set(calls.get() + 1);
                if calls.get() < 20 {
                    Err(fail())
                } else {
                    Ok(calls.get())
                }
            },
            || u64::from(calls.get()) << 16,
            &|_| {},
        );
        assert_eq!(done.unwrap(), 20);
    }
}

//! How is a bearer token had? distribution's token authentication: a GET with name and password, or, with an
//! identity token, an OAuth2 POST.

use super::client::{Call, Content, Hosts, basic, expect};
use super::credentials::Credentials;
use super::failure::{Failure, Outcome};
use super::url::{Url, escape};
use anyhow::{Context, anyhow};
use serde::Deserialize;
use std::io::Read;
use std::time::{Duration, Instant};
use ureq::http::Method;

/// The token specification's default.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used in its last seconds: it must still be good when it arrives.
const MARGIN: Duration = Duration::from_secs(10);
const ANSWER_MAX: u64 = 1 << 20;
const CLIENT_ID: &str = "sc-image";

pub struct Token {
    value: String,
    until: Instant,
}

impl Token {
    pub fn is_fresh(&self) -> bool {
        Instant::now() < self.until
    }

    /// As `Authorization` has it.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }
}

pub struct Asked<'a> {
    pub realm: Url,
    pub insecure: bool,
    pub service: Option<&'a str>,
    pub scopes: &'a [String],
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Fetches a token; without credentials an anonymous one. The caller has judged the realm.
pub fn fetch(
    hosts: &Hosts,
    asked: &Asked<'_>,
    credentials: Option<&Credentials>,
    registry: &str,
) -> Outcome<Token> {
    let realm = asked.realm.clone();
    let explain = |failure: Failure| {
        let refused = matches!(failure.status, Some(400 | 401 | 403));
        let what = match (refused, credentials.is_some()) {
            (true, true) => format!(
                "the token server of {registry} refuses your credentials (sc-image login {registry})"
            ),
            (true, false) => format!(
                "the token server of {registry} wants credentials (sc-image login {registry})"
            ),
            _ => format!("a token for {registry}"),
        };
        failure.context(what)
    };
    let form;
    let call = match credentials {
        Some(Credentials::IdentityToken(identity)) => {
            form = oauth_form(asked, identity);
            Call::new(Method::POST, realm)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Content::Bytes(form.as_bytes()))
        }
        Some(Credentials::Password { user, password }) => {
            let url = query(realm, asked).with_query("account", user);
            Call::new(Method::GET, url).header("authorization", basic(user, password))
        }
        _ => Call::new(Method::GET, query(realm, asked)),
    };
    let (verb, url) = (call.method.to_string(), call.url.clone());
    // Redirects are not followed: the credentials were for this address.
    let answer = hosts
        .exchange(call, asked.insecure, false)
        .and_then(|answer| expect(answer, &[200], &verb, &url));
    let mut answer = answer.map_err(explain)?;
    let mut body = Vec::new();
    let read = answer
        .body_mut()
        .as_reader()
        .take(ANSWER_MAX)
        .read_to_end(&mut body);
    read.map_err(|error| explain(Failure::of_reading(error, &url)))?;
    let token = parse(&body).with_context(|| format!("{url}: the token server's answer"))?;
    Ok(token)
}

fn query(mut url: Url, asked: &Asked<'_>) -> Url {
    if let Some(service) = asked.service {
        url = url.with_query("service", service);
    }
    for scope in asked.scopes {
        url = url.with_query("scope", scope);
    }
    url
}

fn oauth_form(asked: &Asked<'_>, identity: &str) -> String {
    let scope = asked.scopes.join(" ");
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", identity),
        ("client_id", CLIENT_ID),
        ("service", asked.service.unwrap_or_default()),
        ("scope", &scope),
    ];
    let pairs = fields.iter().filter(|(_, value)| !value.is_empty());
    pairs
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect::<Vec<_>>()
        .join("&")
}

fn parse(body: &[u8]) -> anyhow::Result<Token> {
    let answer: Answer = serde_json::from_slice(body).context("is not JSON as specified")?;
    let value = answer
        .token
        .or(answer.access_token)
        .filter(|token| !token.is_empty());
    let value = value.context("holds no token")?;
    // It becomes part of a header.
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(anyhow!("holds a token with characters that no token has"));
    }
    // A day at most: what is longer only makes the sum overflow.
    let life = Duration::from_secs(answer.expires_in.unwrap_or(DEFAULT_LIFE).min(86400));
    Ok(Token {
        value,
        until: Instant::now() + life.saturating_sub(MARGIN),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_under_both_its_names() {
        for (text, expected) in [
            (r#"{"token":"a.b-c"}"#, Some("Bearer a.b-c")),
            (
                r#"{"access_token":"d","expires_in":18446744073709551615}"#,
                Some("Bearer d"),
            ),
            (r#"{"token":"a","access_token":"d"}"#, Some("Bearer a")),
            (r#"{"token":""}"#, None),
            (r#"{}"#, None),
            (r#"{"token":"a\r\nX-Evil: 1"}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(
                parse(text.as_bytes())
                    .ok()
                    .map(|token| token.header())
                    .as_deref(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_is_not_used_up_to_its_last_second() {
        assert!(
            parse(br#"{"token":"a","expires_in":300}"#)
                .unwrap()
                .is_fresh()
        );
        assert!(parse(br#"{"token":"a"}"#).unwrap().is_fresh());
        assert!(
            !parse(br#"{"token":"a","expires_in":5}"#)
                .unwrap()
                .is_fresh()
        );
    }

    #[test]
    fn what_is_asked_is_escaped() {
        let scopes = [
            "repository:a/b:pull,push".to_owned(),
            "repository:c:pull".to_owned(),
        ];
        let realm = Url::parse("https://auth.example/token?x=1").unwrap();
        let asked = Asked {
            realm: realm.clone(),
            insecure: false,
            service: Some("a b"),
            scopes: &scopes,
        };
        assert_eq!(
            query(realm, &asked).path,
            "/token?x=1&service=a%20b&scope=repository%3Aa%2Fb%3Apull%2Cpush&scope=repository%3Ac%3Apull"
        );
        assert_eq!(
            oauth_form(&asked, "i&d"),
            "grant_type=refresh_token&refresh_token=i%26d&client_id=sc-image&service=a%20b&\
             scope=repository%3Aa%2Fb%3Apull%2Cpush%20repository%3Ac%3Apull"
        );
    }
}

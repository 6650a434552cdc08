//! How is a registry asked? Connections, authorization, redirects: one request, one answer, of distribution-spec.
//!
//! Who may learn what (CVE-2020-15157, CVE-2026-48978):
//! - credentials are looked up by the registry's own name, and are sent to it and to the token server it names;
//! - a redirect to another origin, or an upload's foreign Location, gets neither credentials nor token;
//! - nothing is sent in the clear except to this machine itself and to hosts configured as insecure, and no answer
//!   leads from https to http.

use super::challenge::{self, Challenge};
use super::credentials::{Credentials, Keyring};
use super::failure::{Again, Failure, Outcome, looks_like_no_tls, retrying};
use super::proxy;
use super::registries::{Registries, Source};
use super::token::{self, Token};
use super::trust::Trust;
use super::url::{Url, is_loopback};
use crate::image::reference::{DEFAULT_REGISTRY, DEFAULT_REGISTRY_HOST};
use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, Body, SendBody};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing moves for so long is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: u32 = 10;
/// Of an answer that is an error.
const ERROR_BODY_MAX: u64 = 64 << 10;

/// What is the same for all registries: configuration, trust, and a connection pool for each host.
pub struct Hosts {
    pub registries: Registries,
    pub keyring: Keyring,
    trust: Trust,
    /// By scheme, whether the other end is verified, and authority.
    agents: Mutex<HashMap<(bool, bool, String), Agent>>,
}

impl Hosts {
    pub fn from_environment() -> Result<Hosts> {
        Ok(Hosts {
            registries: Registries::load()?,
            keyring: Keyring::from_environment(),
            trust: Trust::from_environment(),
            agents: Mutex::default(),
        })
    }

    fn agent(&self, url: &Url, insecure: bool) -> Result<Agent> {
        let key = (url.https, insecure, url.authority.clone());
        let mut agents = locked(&self.agents);
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let environment = |name: &str| std::env::var(name).ok();
        let proxy = match proxy::choose(url, &environment) {
            Some(proxy) => Some(ureq::Proxy::new(&proxy).with_context(|| {
                format!(
                    "the proxy for {} (HTTPS_PROXY or HTTP_PROXY) is not a URL we can use",
                    url.authority
                )
            })?),
            None => None,
        };
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("sc-image/", env!("CARGO_PKG_VERSION")))
            .proxy(proxy)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT));
        if url.https {
            config = config.tls_config(self.trust.of(&url.authority, insecure)?);
        }
        let agent = config.build().new_agent();
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    /// One request to one server; whatever it answers is an answer. `insecure`: any certificate will do; `reached`: see
    /// [`Failure::of_transport`].
    pub(super) fn exchange(
        &self,
        call: Call<'_>,
        insecure: bool,
        reached: bool,
    ) -> Outcome<Response<Body>> {
        let Call {
            method,
            url,
            headers,
            body,
        } = call;
        let scheme = if url.https { "https" } else { "http" };
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{scheme}://{}{}", url.authority, url.path));
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        if !matches!(body, Content::None) || !matches!(method, Method::GET | Method::HEAD) {
            request = request.header("content-length", body.len());
        }
        let agent = self.agent(&url, insecure)?;
        let answer = match body {
            Content::None => run(&agent, request, SendBody::none()),
            Content::Bytes(mut content) => {
                run(&agent, request, SendBody::from_reader(&mut content))
            }
            Content::Stream(reader, _) => run(&agent, request, SendBody::from_reader(reader)),
        };
        answer.map_err(|error| {
            let no_tls = url.https && !reached && looks_like_no_tls(&error);
            Failure {
                no_tls,
                ..Failure::of_transport(error, method.as_str(), &url, reached)
            }
        })
    }
}

fn run(
    agent: &Agent,
    request: Builder,
    content: SendBody<'_>,
) -> std::result::Result<Response<Body>, ureq::Error> {
    agent.run(request.body(content)?)
}

/// A request as it is sent.
pub(super) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(&'static str, String)>,
    pub body: Content<'a>,
}

pub(super) enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    /// So many bytes of it. Cannot be sent twice.
    Stream(&'a mut dyn Read, u64),
}

impl Content<'_> {
    fn len(&self) -> u64 {
        match self {
            Content::None => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Stream(_, len) => *len,
        }
    }
}

impl<'a> Call<'a> {
    pub fn new(method: Method, url: Url) -> Call<'a> {
        Call {
            method,
            url,
            headers: Vec::new(),
            body: Content::None,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Call<'a> {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, body: Content<'a>) -> Call<'a> {
        self.body = body;
        self
    }
}

/// What is wanted of a repository, in the words of token scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only whether the credentials are good.
    Login,
    Pull,
    Push,
}

/// A registry that has answered, and one of its repositories.
pub struct Client<'a> {
    pub(super) hosts: &'a Hosts,
    pub source: Source,
    access: Access,
    /// Scheme and authority; the path is `/v2/`.
    base: Url,
    credentials: Option<Credentials>,
    demand: Mutex<Demand>,
    tokens: Mutex<HashMap<String, Token>>,
}

/// How the registry wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    Nothing,
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

impl<'a> Client<'a> {
    /// Finds out how to speak with the registry: scheme and authorization.
    pub fn connect(
        hosts: &'a Hosts,
        source: &Source,
        access: Access,
        tell: &dyn Fn(&str),
    ) -> Result<Client<'a>> {
        let credentials = hosts.keyring.find(&source.registry, &source.repository)?;
        Client::connect_as(hosts, source, access, credentials, tell)
    }

    /// [`Client::connect`] with these credentials.
    pub fn connect_as(
        hosts: &'a Hosts,
        source: &Source,
        access: Access,
        credentials: Option<Credentials>,
        tell: &dyn Fn(&str),
    ) -> Result<Client<'a>> {
        let authority = match source.registry.as_str() {
            DEFAULT_REGISTRY => DEFAULT_REGISTRY_HOST,
            other => other,
        };
        let plain = source.insecure || is_loopback(authority);
        let mut base = Url::parse(&format!("https://{authority}/v2/"))?;
        let ping = |url: &Url| {
            let attempt = || {
                let call = Call::new(Method::GET, url.clone());
                let answer = hosts.exchange(call, source.insecure, false);
                let asked = answer.and_then(|answer| demand(answer, url));
                asked.map_err(|failure| match failure.no_tls && plain {
                    true => Failure {
                        again: Again::Never,
                        ..failure
                    },
                    false => failure,
                })
            };
            retrying(attempt, || 0, tell)
        };
        let asked = match ping(&base) {
            Err(failure) if plain && failure.no_tls => {
                base.https = false;
                ping(&base)
            }
            other => other,
        };
        let demand = asked.map_err(|failure| {
            failure
                .error
                .context(format!("registry {}", source.registry))
        })?;
        Ok(Client {
            hosts,
            source: source.clone(),
            access,
            base,
            credentials,
            demand: Mutex::new(demand),
            tokens: Mutex::default(),
        })
    }

    /// Asks something that needs valid credentials and nothing else.
    pub fn prove(&self, tell: &dyn Fn(&str)) -> Result<()> {
        let answer = retrying(
            || self.send(Call::new(Method::GET, self.base.clone()), &[]),
            || 0,
            tell,
        )?;
        expect(answer, &[200], "GET", &self.base)?;
        Ok(())
    }

    /// A URL below this repository.
    pub(super) fn url(&self, rest: &str) -> Url {
        Url {
            path: format!("/v2/{}/{rest}", self.source.repository),
            ..self.base.clone()
        }
    }

    /// Sends a request, with what the registry demands, and follows redirects of GET and HEAD. `also`: other
    /// repositories that are read from.
    pub(super) fn send(&self, call: Call<'_>, also: &[&str]) -> Outcome<Response<Body>> {
        let (method, url) = (call.method.clone(), call.url.clone());
        let headers = call.headers.clone();
        let again = match &call.body {
            Content::None => Some(Content::None),
            Content::Bytes(bytes) => Some(Content::Bytes(bytes)),
            Content::Stream(..) => None,
        };
        let answer = self.send_once(call, also)?;
        if answer.status() != 401 || !url.same_origin(&self.base) {
            return self.follow(answer, &method, url, headers);
        }
        // The token may have expired on the server's clock; or the first request, which is about no repository, was
        // answered to anybody, and this one is not.
        let demanded = Demand::of(answer.headers());
        let news = demanded
            .is_ok_and(|now| std::mem::replace(&mut *locked(&self.demand), now.clone()) != now);
        let (true, Some(body)) = (self.forget_tokens() || news, again) else {
            return Ok(answer);
        };
        let again = Call {
            method: method.clone(),
            url: url.clone(),
            headers: headers.clone(),
            body,
        };
        let answer = self.send_once(again, also)?;
        self.follow(answer, &method, url, headers)
    }

    fn send_once(&self, mut call: Call<'_>, also: &[&str]) -> Outcome<Response<Body>> {
        if call.url.same_origin(&self.base) {
            if let Some(authorization) = self.authorization(also)? {
                call = call.header("authorization", authorization);
            }
        } else {
            self.check_foreign(&self.base, &call.url)?;
        }
        let insecure = self.insecure(&call.url);
        self.hosts.exchange(call, insecure, true)
    }

    fn follow(
        &self,
        mut answer: Response<Body>,
        method: &Method,
        mut url: Url,
        headers: Vec<(&'static str, String)>,
    ) -> Outcome<Response<Body>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Ok(answer);
        }
        for _ in 0..REDIRECTS_MAX {
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = header(answer.headers(), "location").with_context(|| {
                format!("{method} {url}: a redirect that does not say where to")
            })?;
            let next = url
                .join(location)
                .with_context(|| format!("{method} {url}: redirect"))?;
            self.check_foreign(&url, &next)?;
            url = next;
            let call = Call {
                method: method.clone(),
                url: url.clone(),
                headers: headers.clone(),
                body: Content::None,
            };
            // Back at home it is authorized again, elsewhere never: send_once compares origins.
            answer = self.send_once(call, &[])?;
        }
        Err(anyhow!("{method} {url}: more than {REDIRECTS_MAX} redirects").into())
    }

    /// What is configured for a repository counts for its own registry only.
    fn insecure(&self, url: &Url) -> bool {
        match url.authority == self.base.authority {
            true => self.source.insecure,
            false => self.hosts.registries.insecure(&url.authority),
        }
    }

    /// May be spoken to without TLS.
    fn may_be_plain(&self, url: &Url) -> bool {
        is_loopback(&url.authority) || self.insecure(url)
    }

    /// Where may an answer from `from` lead us?
    fn check_foreign(&self, from: &Url, to: &Url) -> Result<()> {
        if !to.https && (from.https || !self.may_be_plain(to)) {
            return Err(anyhow!(
                "{from} leads to {to}, without TLS: refused (`insecure` in registries.conf would allow it for a host \
                 that is itself spoken to without TLS)"
            ));
        }
        Ok(())
    }

    fn authorization(&self, also: &[&str]) -> Outcome<Option<String>> {
        let demand = locked(&self.demand).clone();
        match (&demand, &self.credentials) {
            (Demand::Nothing, _) => Ok(None),
            (_, Some(Credentials::RegistryToken(token))) => Ok(Some(format!("Bearer {token}"))),
            (Demand::Basic, Some(Credentials::Password { user, password })) => {
                Ok(Some(basic(user, password)))
            }
            (Demand::Basic, _) => Ok(None),
            (Demand::Bearer { realm, service }, credentials) => {
                let scopes = self.scopes(also);
                let key = scopes.join(" ");
                // Held while a token is fetched: threads that begin together want the same one.
                let mut tokens = locked(&self.tokens);
                if let Some(token) = tokens.get(&key).filter(|token| token.is_fresh()) {
                    return Ok(Some(token.header()));
                }
                let realm = Url::parse(realm).context("where the registry gives out tokens")?;
                self.check_realm(&realm)?;
                let insecure = self.insecure(&realm);
                let asked = token::Asked {
                    realm,
                    insecure,
                    service: service.as_deref(),
                    scopes: &scopes,
                };
                let token = token::fetch(
                    self.hosts,
                    &asked,
                    credentials.as_ref(),
                    &self.source.registry,
                )?;
                let header = token.header();
                tokens.insert(key, token);
                Ok(Some(header))
            }
        }
    }

    fn scopes(&self, also: &[&str]) -> Vec<String> {
        let actions = match self.access {
            Access::Login => return Vec::new(),
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.source.repository);
        let others = also
            .iter()
            .map(|repository| format!("repository:{repository}:pull"));
        [own].into_iter().chain(others).collect()
    }

    /// A hostile registry must not have a password sent in the clear, to whoever listens (CVE-2026-48978).
    fn check_realm(&self, realm: &Url) -> Result<()> {
        if realm.https || !self.base.https && self.may_be_plain(realm) {
            return Ok(());
        }
        Err(anyhow!(
            "{} wants its tokens fetched from {realm}, without TLS: refused (nothing was sent there)",
            self.source.registry
        ))
    }

    /// Was there a token to forget?
    fn forget_tokens(&self) -> bool {
        let mut tokens = locked(&self.tokens);
        let any = !tokens.is_empty();
        tokens.clear();
        any
    }
}

/// What an answer to the first request says of authorization.
fn demand(answer: Response<Body>, url: &Url) -> Outcome<Demand> {
    if answer.status() != 401 {
        // Some answer 404 there and are registries all the same.
        if answer.status() != 404 {
            expect(answer, &[200], "GET", url)?;
        }
        return Ok(Demand::Nothing);
    }
    Ok(Demand::of(answer.headers()).with_context(|| url.to_string())?)
}

impl Demand {
    /// What an answer with status 401 wants.
    fn of(headers: &HeaderMap) -> Result<Demand> {
        let headers = headers.get_all("www-authenticate").iter();
        let challenges = headers.filter_map(|value| value.to_str().ok());
        let (mut basic, mut others) = (false, Vec::new());
        for challenge in challenges.flat_map(challenge::parse) {
            match challenge {
                Challenge::Bearer { realm, service } => {
                    return Ok(Demand::Bearer { realm, service });
                }
                Challenge::Basic => basic = true,
                Challenge::Other(scheme) => others.push(scheme),
            }
        }
        ensure!(
            basic,
            "wants authorization of a kind we do not know ({})",
            others.join(", ")
        );
        Ok(Demand::Basic)
    }
}

/// An answer with one of these statuses; any other is an error, with the server's own words.
pub(super) fn expect(
    mut answer: Response<Body>,
    wanted: &[u16],
    verb: &str,
    url: &Url,
) -> Outcome<Response<Body>> {
    let status = answer.status().as_u16();
    if wanted.contains(&status) {
        return Ok(answer);
    }
    let mut body = Vec::new();
    // The status is the message; what could be read explains it.
    let _ = answer
        .body_mut()
        .as_reader()
        .take(ERROR_BODY_MAX)
        .read_to_end(&mut body);
    Err(Failure::of_status(
        status,
        answer.headers(),
        &body,
        verb,
        url,
    ))
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn basic(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {pair}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Which name and password does a registry get? Docker's config.json, the containers tools' auth.json, and
//! credential helpers, read and (for `login` and `logout`) written.
//!
//! `REGISTRY_AUTH_FILE` alone if it is set; otherwise docker's file, which is where `login` writes, then the
//! containers files. A key of `auths` is a registry, or a path below one (containers-auth.json(5)); the
//! longest that fits wins. Secrets are never printed, nor put into arguments or the environment.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::image::reference::{DEFAULT_REGISTRY, DEFAULT_REGISTRY_NAMES};

/// The key under which docker keeps the default registry's credentials.
const DEFAULT_REGISTRY_KEY: &str = "https://index.docker.io/v1/";
/// A config.json or a helper's answer larger than this is not one.
const LIMIT: u64 = 1 << 20;
/// The user name by which helpers mark an identity token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";
/// What a helper prints, on stdout, when it has nothing.
const HELPER_HAS_NONE: &[&str] = &[
    "credentials not found in native keychain",
    "no credentials server URL",
    "not found",
];

/// What is shown to a registry, or to the token server it names.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token, exchanged for access tokens.
    IdentityToken(String),
    /// A token to be sent as it is.
    RegistryToken(String),
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { user, .. } => write!(f, "password of {user}"),
            Credentials::IdentityToken(_) => f.write_str("identity token"),
            Credentials::RegistryToken(_) => f.write_str("registry token"),
        }
    }
}

/// The files credentials are in, most wanted first.
#[derive(Clone, Debug)]
pub struct Keyring {
    files: Vec<PathBuf>,
    /// The first file was named by the user: that it is missing is an error.
    named: bool,
}

impl Keyring {
    /// From the environment: `REGISTRY_AUTH_FILE`, `DOCKER_CONFIG`, `HOME`, `XDG_RUNTIME_DIR`, `XDG_CONFIG_HOME`.
    pub fn from_environment() -> Keyring {
        let get = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Keyring::of(&get)
    }

    fn of(get: &dyn Fn(&str) -> Option<OsString>) -> Keyring {
        if let Some(file) = get("REGISTRY_AUTH_FILE") {
            return Keyring {
                files: vec![file.into()],
                named: true,
            };
        }
        let path = |name: &str| get(name).map(PathBuf::from);
        let home = path("HOME");
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let files = [
            docker.map(|dir| dir.join("config.json")),
            path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            config.map(|dir| dir.join("containers/auth.json")),
        ];
        Keyring {
            files: files.into_iter().flatten().collect(),
            named: false,
        }
    }

    /// What `registry/repository` gets, if anything.
    ///
    /// # Errors
    /// A file that cannot be read, a helper that fails: falling back to no credentials would hide them.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        for file in &self.files {
            let Some(document) = read(file)? else {
                ensure!(
                    !self.named,
                    "{}: no such file (REGISTRY_AUTH_FILE names it)",
                    file.display()
                );
                continue;
            };
            if let Some(found) = find_in(&document, registry, repository)
                .with_context(|| format!("credentials for {registry} from {}", file.display()))?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps a name and password for a registry, in its credential helper if one is configured; says where they went.
    pub fn store(&self, registry: &str, user: &str, password: &str) -> Result<String> {
        let file = self.files.first().context(
            "no place for credentials: none of HOME, DOCKER_CONFIG and REGISTRY_AUTH_FILE is set",
        )?;
        let mut place = String::new();
        change(file, |document| {
            if let Some(helper) = helper(document, registry)? {
                let message =
                    json!({"ServerURL": server(registry), "Username": user, "Secret": password});
                run_helper(&helper, "store", message.to_string().as_bytes())?
                    .map_err(|why| anyhow::anyhow!("docker-credential-{helper} store: {why}"))?;
                place = format!("credential helper {helper}");
            } else {
                let auth = STANDARD.encode(format!("{user}:{password}"));
                let auths = object(document, "auths")?;
                auths.retain(|key, _| !same_place(key, registry));
                auths.insert(server(registry).to_owned(), json!({ "auth": auth }));
                place = file.display().to_string();
            }
            Ok(())
        })
        .with_context(|| format!("store credentials for {registry}"))?;
        Ok(place)
    }

    /// Forgets a registry's credentials, wherever they are; was there something to forget?
    pub fn forget(&self, registry: &str) -> Result<bool> {
        let mut any = false;
        for file in &self.files {
            let Some(document) = read(file)? else {
                continue;
            };
            let in_helper = match helper(&document, registry)? {
                Some(helper) if ask_helper(&helper, registry)?.is_some() => {
                    run_helper(&helper, "erase", server(registry).as_bytes())?.map_err(|why| {
                        anyhow::anyhow!("docker-credential-{helper} erase: {why}")
                    })?;
                    true
                }
                _ => false,
            };
            let in_file = (document.get("auths").and_then(Value::as_object))
                .is_some_and(|auths| auths.keys().any(|key| same_place(key, registry)));
            if in_file {
                change(file, |document| {
                    object(document, "auths")?.retain(|key, _| !same_place(key, registry));
                    Ok(())
                })?;
            }
            any |= in_helper || in_file;
        }
        Ok(any)
    }
}

fn find_in(
    document: &Map<String, Value>,
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>> {
    if let Some(helper) = helper(document, registry)?
        && let Some(found) = ask_helper(&helper, registry)?
    {
        return Ok(Some(found));
    }
    let Some(auths) = document.get("auths").and_then(Value::as_object) else {
        return Ok(None);
    };
    let wanted = format!("{registry}/{repository}");
    let fits = |key: &str| {
        let rest = wanted.strip_prefix(place(key))?;
        (rest.is_empty() || rest.starts_with('/')).then_some(place(key).len())
    };
    let best = auths
        .iter()
        .filter_map(|(key, entry)| Some((fits(key)?, key, entry)))
        .max_by_key(|(fit, ..)| *fit);
    match best {
        Some((_, key, entry)) => credentials(entry).with_context(|| format!("auths[{key:?}]")),
        None => Ok(None),
    }
}

/// One entry of `auths`. Docker leaves empty ones behind where a helper has the secret.
fn credentials(entry: &Value) -> Result<Option<Credentials>> {
    let text = |key: &str| {
        entry
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credentials::RegistryToken(token.to_owned())));
    }
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credentials::IdentityToken(token.to_owned())));
    }
    if let (Some(user), Some(password)) = (text("username"), text("password")) {
        return Ok(Some(Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        }));
    }
    let Some(auth) = text("auth") else {
        return Ok(None);
    };
    let auth = auth.trim_end_matches('=');
    let decoded = STANDARD_NO_PAD
        .decode(auth)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
    let (user, password) = pair.context("auth is not NAME:PASSWORD in base64")?;
    // Some versions of docker padded the password with NULs.
    let password = password.trim_end_matches('\0');
    Ok(Some(Credentials::Password {
        user: user.to_owned(),
        password: password.to_owned(),
    }))
}

/// The helper responsible for a registry: its own, or the one for all.
fn helper(document: &Map<String, Value>, registry: &str) -> Result<Option<String>> {
    let own = document
        .get("credHelpers")
        .and_then(Value::as_object)
        .and_then(|helpers| {
            helpers
                .iter()
                .find(|(key, _)| same_place(key, registry))
                .map(|(_, name)| name)
        });
    let Some(name) = own
        .or_else(|| document.get("credsStore"))
        .and_then(Value::as_str)
    else {
        return Ok(None);
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // It becomes part of a program's name.
    ensure!(
        name.bytes().all(legal),
        "credential helper {name:?} is not a name"
    );
    Ok(Some(name.to_owned()).filter(|name| !name.is_empty()))
}

fn ask_helper(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let answer = match run_helper(helper, "get", server(registry).as_bytes())? {
        Ok(answer) => answer,
        Err(why) if HELPER_HAS_NONE.iter().any(|none| why.contains(none)) => return Ok(None),
        Err(why) => bail!("docker-credential-{helper} get: {why}"),
    };
    let answer: Value = serde_json::from_str(&answer)
        .with_context(|| format!("docker-credential-{helper} get: its answer is not JSON"))?;
    let text = |key: &str| {
        answer
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (user, secret) = (text("Username"), text("Secret"));
    Ok(match user.as_str() {
        _ if secret.is_empty() => None,
        TOKEN_USER => Some(Credentials::IdentityToken(secret)),
        _ => Some(Credentials::Password {
            user,
            password: secret,
        }),
    })
}

/// Runs `docker-credential-HELPER VERB` with the message on its stdin. Its answer, or its complaint.
fn run_helper(
    helper: &str,
    verb: &str,
    message: &[u8],
) -> Result<std::result::Result<String, String>> {
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run credential helper {program} (is it installed?)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its stdin has answered already.
        let _ = stdin.write_all(message);
    }
    let mut answer = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout
            .take(LIMIT)
            .read_to_string(&mut answer)
            .with_context(|| format!("read from {program}"))?;
    }
    let status = child
        .wait()
        .with_context(|| format!("wait for {program}"))?;
    if status.success() {
        return Ok(Ok(answer));
    }
    let why = answer.trim();
    Ok(Err(if why.is_empty() {
        status.to_string()
    } else {
        why.to_owned()
    }))
}

/// A key of `auths` as registry and path: without scheme, and without the `/v1/` of old.
pub fn place(key: &str) -> &str {
    let bare = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    match DEFAULT_REGISTRY_NAMES.contains(&bare) {
        true => DEFAULT_REGISTRY,
        false => bare,
    }
}

fn same_place(key: &str, registry: &str) -> bool {
    place(key) == registry
}

/// A registry as docker and its helpers call it.
fn server(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY {
        DEFAULT_REGISTRY_KEY
    } else {
        registry
    }
}

fn read(file: &Path) -> Result<Option<Map<String, Value>>> {
    let name = || file.display().to_string();
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(name),
    };
    let mut text = String::new();
    opened
        .take(LIMIT)
        .read_to_string(&mut text)
        .with_context(name)?;
    if text.trim().is_empty() {
        return Ok(Some(Map::new()));
    }
    serde_json::from_str(&text)
        .with_context(|| format!("{}: not a JSON object", name()))
        .map(Some)
}

fn object<'a>(
    document: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>> {
    let entry = document.entry(key).or_insert_with(|| json!({}));
    entry
        .as_object_mut()
        .with_context(|| format!("{key}: not an object"))
}

/// Changes a file under a lock and by rename; what it says of other things stays. Readable by its owner only.
fn change(file: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> Result<()>) -> Result<()> {
    // Where it is a link into somebody's dotfiles, what it points to is what is replaced.
    let file = &fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let dir = file
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .create(dir)
        .with_context(|| format!("create {}", dir.display()))?;
    let handle = File::open(dir).with_context(|| format!("open {}", dir.display()))?;
    let _lock = Flock::lock(handle, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("lock {}", dir.display()))?;
    let mut document = read(file)?.unwrap_or_default();
    let before = document.clone();
    edit(&mut document)?;
    if document == before {
        return Ok(());
    }
    let mut name = file.file_name().context("not a file name")?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let new = dir.join(name);
    let written = write_private(&new, &document).and_then(|()| fs::rename(&new, file));
    written
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .with_context(|| format!("write {}", file.display()))
}

fn write_private(path: &Path, document: &Map<String, Value>) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // A leftover of the same name may have been more open.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    serde_json::to_writer_pretty(&mut file, document)?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    fn document(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_longest_key_that_fits_wins_however_it_is_written() {
        let auth = |text: &str| json!({ "auth": STANDARD.encode(text) });
        let config = document(json!({"auths": {
            "https://index.docker.io/v1/": auth("hub:1"),
            "r.example": auth("host:2"),
            "r.example/team": auth("team:3"),
            "r.example/team/app": auth("app:4"),
            "https://old.example/v1/": auth("old:5"),
            "plain.example:5000": {"username": "u", "password": "p"},
            "pad.example": {"auth": STANDARD.encode("pad:6\0\0")},
            "bare.example": {"auth": STANDARD.encode("ab:cd:e").trim_end_matches('=')},
            "empty.example": {},
        }}));
        let cases = [
            ("docker.io", "library/a", password("hub", "1")),
            ("r.example", "other/a", password("host", "2")),
            ("r.example", "teams/a", password("host", "2")),
            ("r.example", "team/a", password("team", "3")),
            ("r.example", "team/app", password("app", "4")),
            ("old.example", "a", password("old", "5")),
            ("plain.example:5000", "a", password("u", "p")),
            ("plain.example", "a", None),
            ("pad.example", "a", password("pad", "6")),
            ("bare.example", "a", password("ab", "cd:e")),
            ("empty.example", "a", None),
            ("r.example.evil.example", "a", None),
        ];
        for (registry, repository, expected) in cases {
            assert_eq!(
                find_in(&config, registry, repository).unwrap(),
                expected,
                "{registry}/{repository}"
            );
        }
    }

    #[test]
    fn tokens_are_told_apart() {
        let config = document(json!({"auths": {
            "a.example": {"auth": "", "identitytoken": "id"},
            "b.example": {"registrytoken": "reg", "auth": STANDARD.encode("x:y")},
        }}));
        let find = |registry| find_in(&config, registry, "a").unwrap();
        assert_eq!(
            find("a.example"),
            Some(Credentials::IdentityToken("id".to_owned()))
        );
        assert_eq!(
            find("b.example"),
            Some(Credentials::RegistryToken("reg".to_owned()))
        );
    }

    #[test]
    fn a_broken_entry_names_its_key_and_not_its_secret() {
        let config = document(json!({"auths": {"r.example": {"auth": "c2VjcmV0"}}}));
        let error = find_in(&config, "r.example", "a").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "auths[\"r.example\"]: auth is not NAME:PASSWORD in base64"
        );
    }

    #[test]
    fn a_helper_is_a_name_and_not_a_path() {
        let config = document(json!({"credHelpers": {"r.example": "x/../../evil"}}));
        let error = find_in(&config, "r.example", "a").unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "credential helper \"x/../../evil\" is not a name"
        );
    }

    #[test]
    fn a_registrys_own_helper_wins_over_the_one_for_all() {
        let config =
            document(json!({"credsStore": "all", "credHelpers": {"https://r.example": "own"}}));
        assert_eq!(
            helper(&config, "r.example").unwrap().as_deref(),
            Some("own")
        );
        assert_eq!(
            helper(&config, "s.example").unwrap().as_deref(),
            Some("all")
        );
    }

    #[test]
    fn the_file_named_by_the_environment_is_the_only_one() {
        let of = |set: &[(&str, &str)]| {
            let get = |name: &str| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).into())
            };
            Keyring::of(&get)
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&[("REGISTRY_AUTH_FILE", "/a"), ("HOME", "/h")]), ["/a"]);
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")]),
            [
                "/h/.docker/config.json",
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json"
            ]
        );
        assert_eq!(of(&[("DOCKER_CONFIG", "/d")]), ["/d/config.json"]);
    }

    #[test]
    fn storing_keeps_what_else_the_file_says_and_forgetting_takes_it_back() {
        let dir = std::env::temp_dir().join(format!("sc-keyring-{}", std::process::id()));
        let file = dir.join("new/config.json");
        let keyring = Keyring {
            files: vec![file.clone()],
            named: false,
        };
        assert_eq!(keyring.find("r.example", "a").unwrap(), None);
        keyring.store("r.example", "u", "p:q").unwrap();
        change(&file, |document| {
            document.insert("detachKeys".to_owned(), json!("ctrl-a"));
            Ok(())
        })
        .unwrap();
        keyring.store("docker.io", "hub", "h").unwrap();
        assert_eq!(
            keyring.find("r.example", "a").unwrap(),
            password("u", "p:q")
        );
        assert_eq!(
            keyring.find("docker.io", "library/a").unwrap(),
            password("hub", "h")
        );
        assert_eq!(
            fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(keyring.forget("r.example").unwrap());
        assert!(!keyring.forget("r.example").unwrap());
        let left = read(&file).unwrap().unwrap();
        assert_eq!(left["detachKeys"], "ctrl-a");
        assert_eq!(left["auths"].as_object().unwrap().len(), 1);
        assert_eq!(fs::read_dir(dir.join("new")).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}

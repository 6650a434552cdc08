//! What does the bundle's config.json say? Bytes to runtime-spec's types, or to the name of the
//! value that is wrong.
//!
//! One typed pass reads nearly every file. Only when it refuses is the text read once more, as a
//! tree: [`mend`] applies what engines and runc are used to and oci-spec's types are too strict
//! for, each with its reason, and the tree is read into the types again. Whether the values make
//! sense together is not asked here but in [`super::validate`].

mod mend;
mod strict;

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::{Process, Spec};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A config.json beyond this is a mistake or an attack: the largest that engines write (a few
/// hundred mounts and a seccomp profile) are a hundredth of it.
const LARGEST: u64 = 16 << 20;

/// A tree of a text can take ninety times as much memory as the text: beyond this, none is made.
const LARGEST_TO_MEND: usize = 2 << 20;

/// A config.json that was read.
pub struct Loaded {
    pub spec: Spec,
    /// What was tolerated, and should be repaired.
    pub warnings: Vec<String>,
    /// The file as it was.
    pub raw: Vec<u8>,
}

/// Reads `bundle`/config.json.
///
/// Errors name the JSON path of the value that is wrong, or line and column where it is not JSON.
pub fn load(bundle: &Path) -> Result<Loaded> {
    let path = bundle.join("config.json");
    let file = match open(&path) {
        // runc's words, which engines look for.
        Err(e) if e.kind() == ErrorKind::NotFound => bail!(
            "JSON specification file config.json not found in {}",
            bundle.display()
        ),
        other => other.with_context(|| format!("open {}", path.display()))?,
    };
    let raw = read(file).with_context(|| format!("{}", path.display()))?;
    let (spec, warnings) = parse(&raw).context("config.json")?;
    Ok(Loaded {
        spec,
        warnings,
        raw,
    })
}

/// Not blocking: a FIFO in its place would be waited for forever.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

/// The text of a JSON file that is a regular one and of bearable size.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    read(open(path).map_err(|e| anyhow!("open: {}", reason(&e)))?)
}

/// An error of the operating system, without its number.
fn reason(e: &std::io::Error) -> String {
    match e.raw_os_error() {
        Some(n) => nix::errno::Errno::from_raw(n).desc().to_lowercase(),
        None => e.to_string(),
    }
}

/// All of a regular file, in one read.
fn read(mut file: File) -> Result<Vec<u8>> {
    let facts = file.metadata()?;
    ensure!(facts.is_file(), "is not a regular file");
    ensure!(
        facts.len() <= LARGEST,
        "has {} bytes; more than {LARGEST} are refused",
        facts.len()
    );
    let mut text = vec![0; facts.len() as usize];
    file.read_exact(&mut text)?;
    Ok(text)
}

/// The text of a config.json; with it, warnings about what was tolerated.
pub fn parse(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    let (mut spec, warnings) = understand(text, "", mend::spec)?;
    empty_is_absent(&mut spec);
    if is_before_1_3(spec.version()) {
        zero_pids_are_no_limit(&mut spec);
    }
    Ok((spec, warnings))
}

fn is_before_1_3(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) < (Some(1), Some(3))
}

/// Of `pids.limit` the specification said "default is no limit" until 1.3 made 0 a number like any
/// other; podman before 5.4 writes 0 for `--pids-limit=-1`.
fn zero_pids_are_no_limit(spec: &mut Spec) {
    let linux = spec.linux_mut().as_mut();
    let resources = linux.and_then(|linux| linux.resources_mut().as_mut());
    if let Some(pids) = resources.and_then(|resources| resources.pids_mut().as_mut())
        && pids.limit() == 0
    {
        pids.set_limit(-1);
    }
}

/// In Go, where config.json comes from, an absent string and "" are one: a namespace whose path is
/// "" is a new one, a host name "" is none.
fn empty_is_absent(spec: &mut Spec) {
    let named = |name: &String| !name.is_empty();
    *spec.hostname_mut() = spec.hostname_mut().take().filter(named);
    *spec.domainname_mut() = spec.domainname_mut().take().filter(named);
    let namespaces = spec
        .linux_mut()
        .as_mut()
        .and_then(|l| l.namespaces_mut().as_mut());
    for namespace in namespaces.into_iter().flatten() {
        if namespace.path().as_deref() == Some(Path::new("")) {
            namespace.set_path(None);
        }
    }
}

/// The text of a process alone (`exec --process`). Fields are named as in config.json.
pub fn parse_process(text: &[u8]) -> Result<(Process, Vec<String>)> {
    understand(text, "process", mend::process)
}

fn understand<T: DeserializeOwned>(
    text: &[u8],
    root: &str,
    mend: fn(&mut Value, &mut Vec<String>),
) -> Result<(T, Vec<String>)> {
    ensure!(
        text.len() as u64 <= LARGEST,
        "has {} bytes; more than {LARGEST} are refused",
        text.len()
    );
    let mut reader = serde_json::Deserializer::from_slice(text);
    let first = match strict::read(&mut reader) {
        Ok(value) => {
            reader.end().map_err(|e| anyhow!("is not JSON: {e}"))?;
            return Ok((value, Vec::new()));
        }
        Err(refused) => refused,
    };
    // Not JSON at all, or too deep: said before what a half-read document lacks.
    if text.len() > LARGEST_TO_MEND {
        serde_json::from_slice::<IgnoredAny>(text).map_err(|e| anyhow!("is not JSON: {e}"))?;
        return Err(complaint(root, &first));
    }
    let mut tree: Value = serde_json::from_slice(text).map_err(|e| anyhow!("is not JSON: {e}"))?;
    let mut warnings = Vec::new();
    if first.error.to_string().starts_with("duplicate field") {
        // As everywhere else, Go included; but two readers may differ, so it is said.
        let said = format!("{}; the last one counts", first.error);
        warnings.push(at(root, &first.path, &said));
    }
    mend(&mut tree, &mut warnings);
    // One a line, and nobody reads a million.
    warnings.truncate(20);
    match strict::read::<T, _>(tree) {
        Ok(value) => Ok((value, warnings)),
        Err(second) => {
            // The first pass knows line and column of the same value.
            let same = first.path == second.path
                && first
                    .error
                    .to_string()
                    .starts_with(&second.error.to_string());
            Err(complaint(root, if same { &first } else { &second }))
        }
    }
}

/// One line, whatever the document holds.
fn complaint(root: &str, refused: &strict::Refused<serde_json::Error>) -> anyhow::Error {
    let text = refused.error.to_string();
    let mut path = refused.path.clone();
    let missing = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'));
    let text = match missing {
        Some((field, _)) => {
            strict::push_key(&mut path, field);
            "is missing".to_owned()
        }
        None => text,
    };
    anyhow!("{}", at(root, &path, &text))
}

/// `text`, said of the value at `path`; the whole document has no name.
fn at(root: &str, path: &str, text: &str) -> String {
    match place(root, path) {
        path if path.is_empty() => short(text),
        path => format!("{}: {}", short(&path), short(text)),
    }
}

fn place(root: &str, path: &str) -> String {
    match (root, path) {
        ("", path) => path.to_owned(),
        (root, "") => root.to_owned(),
        (root, path) if path.starts_with('[') => format!("{root}{path}"),
        (root, path) => format!("{root}.{path}"),
    }
}

/// At most 300 characters, none of which starts a new line or speaks to a terminal.
fn short(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == 300 {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::plan::default_spec;
    use serde_json::json;

    /// The default config with the value at `pointer` replaced or added.
    fn with(pointer: &str, value: Value) -> Vec<u8> {
        let mut tree: Value = serde_json::from_str(&default_spec::text()).unwrap();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match tree.pointer_mut(parent).unwrap() {
            Value::Object(object) => drop(object.insert(name.to_owned(), value)),
            Value::Array(list) => list[name.parse::<usize>().unwrap()] = value,
            other => panic!("{pointer}: {other}"),
        }
        tree.to_string().into_bytes()
    }

    fn refusal(text: &[u8]) -> String {
        format!("{:#}", parse(text).map(|(_, w)| w).unwrap_err())
    }

    #[test]
    fn a_wrong_value_is_named_by_its_place_and_position() {
        let text = b"{\n \"process\": {\"user\": {}, \"cwd\": \"/\",\n  \"args\": [\"a\", 7]}}";
        assert_eq!(
            refusal(text),
            "process.args[1]: invalid type: integer `7`, expected a string at line 3 column 17"
        );
    }

    #[test]
    fn every_wrong_value_is_named_by_its_place() {
        for (pointer, value, place) in [
            ("/process/args", json!("sh"), "process.args: "),
            ("/process/args", json!([null]), "process.args[0]: "),
            ("/process/user/uid", json!(-1), "process.user.uid: "),
            (
                "/process/user/uid",
                json!(4294967296u64),
                "process.user.uid: ",
            ),
            (
                "/process/capabilities/bounding",
                json!([4]),
                "process.capabilities.bounding[0]: ",
            ),
            (
                "/process/rlimits",
                json!([{ "type": "RLIMIT_X" }]),
                "process.rlimits[0].type: unknown variant",
            ),
            (
                "/process/rlimits",
                json!([{}]),
                "process.rlimits[0].type: is missing",
            ),
            (
                "/linux/namespaces/5",
                json!({ "type": "made-up" }),
                "linux.namespaces[5].type: unknown variant",
            ),
            (
                "/linux/devices",
                json!([{ "path": "/dev/x", "type": "z" }]),
                "linux.devices[0].type: ",
            ),
            (
                "/linux/sysctl",
                json!({ "kernel.msgmax": 5 }),
                "linux.sysctl[\"kernel.msgmax\"]: ",
            ),
            (
                "/linux/resources/memory",
                json!({ "limit": "x" }),
                "linux.resources.memory.limit: ",
            ),
            (
                "/linux/timeOffsets",
                json!({ "boottime": { "secs": 1.5 } }),
                "linux.timeOffsets.boottime.secs: ",
            ),
            (
                "/linux/memoryPolicy",
                json!({}),
                "linux.memoryPolicy.mode: is missing",
            ),
            ("/mounts/1/options", json!("ro"), "mounts[1].options: "),
            (
                "/mounts/0",
                json!({ "type": "proc" }),
                "mounts[0].destination: is missing",
            ),
            (
                "/annotations",
                json!({ "a b": 1 }),
                "annotations[\"a b\"]: ",
            ),
        ] {
            let said = refusal(&with(pointer, value));
            assert!(said.starts_with(place), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_list_is_no_object() {
        for pointer in [
            "/hooks",
            "/process/capabilities",
            "/process/user",
            "/root",
            "/linux",
            "/process",
            "/mounts/0",
        ] {
            let said = refusal(&with(pointer, json!([])));
            let (at, why) = said.split_once(": ").unwrap();
            assert_eq!(
                at.replace("[0]", ".0"),
                pointer[1..].replace('/', "."),
                "{said}"
            );
            assert!(why.starts_with("invalid type: sequence"), "{said}");
        }
        assert!(refusal(b"[]").starts_with("invalid type: sequence"));
    }

    #[test]
    fn a_very_large_text_is_read_as_it_is_or_not_at_all() {
        // Mended: a capability that nobody knows.
        let small = with("/process/capabilities/bounding", json!(["CAP_X"]));
        let mut large = small.clone();
        assert!(parse(&small).is_ok());
        large.resize(LARGEST_TO_MEND + 1, b' ');
        assert!(refusal(&large).starts_with("process.capabilities.bounding[0]: "));
        large[LARGEST_TO_MEND] = b'}';
        assert!(refusal(&large).starts_with("is not JSON: "));
    }

    #[test]
    fn what_is_not_json_is_refused_by_line_and_column() {
        for (text, said) in [
            (
                "",
                "is not JSON: EOF while parsing a value at line 1 column 0",
            ),
            ("{}{", "is not JSON: trailing characters at line 1 column 3"),
            (
                "{\"a\": 1,\n}",
                "is not JSON: trailing comma at line 2 column 1",
            ),
            (
                "nul",
                "is not JSON: EOF while parsing a value at line 1 column 3",
            ),
        ] {
            assert_eq!(refusal(text.as_bytes()), said, "{text}");
        }
        for depth in [200, 100_000] {
            for open in ["[", "{\"x\":", "{\"root\":", "{\"mounts\":["] {
                assert!(
                    refusal(open.repeat(depth).as_bytes()).contains("line 1"),
                    "{open}"
                );
            }
        }
        assert!(refusal(b"{\"hostname\": \"\xff\"}").starts_with("is not JSON: "));
    }

    #[test]
    fn a_hostile_name_cannot_start_a_line_or_fill_the_screen() {
        let kind = "x\n\u{1b}[2J".repeat(10_000);
        let said = refusal(&with("/linux/namespaces/0/type", json!(kind)));
        assert!(said.len() < 1000, "{}", said.len());
        assert!(!said.chars().any(char::is_control));
    }

    #[test]
    fn what_runc_takes_is_taken() {
        let taken = |pointer: &str, value: Value| {
            let text = with(pointer, value.clone());
            let (spec, warnings) =
                parse(&text).unwrap_or_else(|e| panic!("{pointer} {value}: {e:#}"));
            (serde_json::to_value(spec).unwrap(), warnings)
        };
        let unchanged = |pointer: &str, value: Value| {
            let (tree, warnings) = taken(pointer, value);
            assert_eq!(warnings, [""; 0]);
            tree
        };
        for pointer in [
            "/mounts",
            "/hooks",
            "/linux/resources",
            "/linux/maskedPaths",
            "/process/env",
            "/root/readonly",
            "/linux/resources/devices/0/major",
            "/linux/resources/pids",
            "/process/user",
            "/hostname",
        ] {
            unchanged(pointer, Value::Null);
        }
        unchanged("/linux/resources/pids", json!({ "limit": null }));
        unchanged("/linux/netDevices", json!({ "eth0": {} }));
        unchanged("/windows", json!({ "made": "up" }));
        unchanged("/uidMappings", json!("made up"));
        unchanged("/linux/resources/devices/0/type", json!(""));
        let tree = unchanged(
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "2MB", "limit": u64::MAX }]),
        );
        assert_eq!(
            tree.pointer("/linux/resources/hugepageLimits/0/limit"),
            Some(&json!(i64::MAX))
        );
        let tree = unchanged(
            "/process/execCPUAffinity",
            json!({ "initial": " 0-1, 3,", "final": "" }),
        );
        assert_eq!(
            tree.pointer("/process/execCPUAffinity"),
            Some(&json!({ "initial": "0-1,3" }))
        );
        let tree = unchanged("/linux/namespaces/0", json!({ "type": "pid", "path": "" }));
        assert_eq!(
            tree.pointer("/linux/namespaces/0"),
            Some(&json!({ "type": "pid" }))
        );
    }

    #[test]
    fn every_scheduler_flag_of_the_specification_is_known() {
        for flag in [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ] {
            let scheduler =
                json!({ "policy": "SCHED_OTHER", "flags": [format!("SCHED_FLAG_{flag}")] });
            let (spec, _) = parse(&with("/process/scheduler", scheduler)).unwrap();
            let scheduler = spec.process().as_ref().unwrap().scheduler();
            assert_eq!(
                scheduler.as_ref().unwrap().flags().as_ref().unwrap().len(),
                1,
                "{flag}"
            );
        }
    }

    #[test]
    fn unknown_capabilities_are_dropped_with_a_warning() {
        let sets =
            json!({ "bounding": ["CAP_KILL", "CAP_MADE_UP", "CAP_CHOWN", ""], "ambient": [] });
        let (spec, warnings) = parse(&with("/process/capabilities", sets)).unwrap();
        assert_eq!(
            warnings,
            [
                "process.capabilities.bounding[1]: ignoring unknown capability \"CAP_MADE_UP\"",
                "process.capabilities.bounding[3]: ignoring unknown capability \"\"",
            ]
        );
        let sets = spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .as_ref()
            .unwrap();
        assert_eq!(sets.bounding().as_ref().unwrap().len(), 2);
    }

    #[test]
    fn of_two_equal_keys_the_last_one_counts_and_it_is_said() {
        let (spec, warnings) = parse(br#"{"hostname": "a", "hostname": "b"}"#).unwrap();
        assert_eq!(spec.hostname().as_deref(), Some("b"));
        assert_eq!(
            warnings,
            ["duplicate field `hostname` at line 1 column 28; the last one counts"]
        );
    }

    #[test]
    fn a_process_alone_is_named_as_in_config_json() {
        let (process, _) = parse_process(br#"{"args": ["a"], "cwd": "/", "user": null}"#).unwrap();
        assert_eq!(process.user().uid(), 0);
        let said = format!(
            "{:#}",
            parse_process(br#"{"args": 1, "cwd": "/"}"#).unwrap_err()
        );
        assert!(
            said.starts_with("process.args: invalid type: integer `1`"),
            "{said}"
        );
        let said = parse_process(b"{}").unwrap_err().to_string();
        assert_eq!(said, "process.cwd: is missing");
    }

    #[test]
    fn only_a_regular_file_of_bearable_size_is_read() {
        let dir = std::env::temp_dir().join(format!("sc-config-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("config.json");
        let load = || load(&dir).map(|l| l.warnings).map_err(|e| format!("{e:#}"));
        let missing = load();
        std::fs::write(&path, default_spec::text()).unwrap();
        let good = load();
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = load();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let endless = load();
        std::fs::remove_file(&path).unwrap();
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        let large = load();
        std::fs::remove_dir_all(&dir).unwrap();
        let at = path.display();
        assert_eq!(good, Ok(vec![]));
        assert_eq!(
            missing,
            Err(format!(
                "JSON specification file config.json not found in {}",
                dir.display()
            ))
        );
        assert_eq!(fifo, Err(format!("{at}: is not a regular file")));
        assert_eq!(endless, Err(format!("{at}: is not a regular file")));
        assert_eq!(
            large,
            Err(format!(
                "{at}: has 16777217 bytes; more than 16777216 are refused"
            ))
        );
    }

    #[test]
    fn no_tasks_at_all_are_a_limit_since_1_3() {
        let limit = |version: &str| {
            let text = json!({
                "ociVersion": version,
                "root": { "path": "/" },
                "linux": { "resources": { "pids": { "limit": 0 } } },
            });
            let (spec, _) = parse(text.to_string().as_bytes()).unwrap();
            let linux = spec.linux().as_ref().unwrap();
            let resources = linux.resources().as_ref().unwrap();
            resources.pids().as_ref().unwrap().limit()
        };
        assert_eq!(limit("1.0.2-dev"), -1);
        assert_eq!(limit("1.2.1"), -1);
        assert_eq!(limit("1.3.0"), 0);
        assert_eq!(limit("2.0"), 0);
    }
}

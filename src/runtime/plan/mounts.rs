//! What does an entry of `mounts` ask for?
//!
//! runtime-spec config.md#mounts: the words of `options` become attributes of the mount
//! (mount_setattr(2)), propagation, and parameters of the file system (fsconfig(2)). Where words
//! contradict each other, the last wins, as in runc.

use super::namespaces::id_map;
use super::paths::clean;
use super::{Ask, Attr, IdMap, Mount, MountIdMap, MountIds, MountKind, Parameter};
use anyhow::{Result, bail, ensure};
use oci_spec::runtime::Mount as Asked;
use std::path::Path;

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// Three values in one field of the mask: to set one, all of it is cleared (mount_setattr(2)).
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// What else of the container decides about its mounts.
pub struct Surroundings<'a> {
    /// It has a cgroup namespace of its own.
    pub cgroup_namespace: bool,
    /// Maps of its new user namespace; empty where it has none.
    pub uid_map: &'a [IdMap],
    pub gid_map: &'a [IdMap],
}

/// The mounts in their order.
///
/// Errors name the entry, and the option that cannot be.
pub fn draw(
    asked: &[Asked],
    ask: &Ask,
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<Vec<Mount>> {
    let all = asked.iter().enumerate();
    all.map(|(i, mount)| one(i, mount, ask, surroundings, warnings))
        .collect()
}

/// Gives linux.mountLabel to every new file system that can have one: `context=`, as runc does.
/// Those that are one and the same for several mounts (the kernel's own, and cgroup2) cannot; a
/// bind keeps the labels of its files.
pub fn label(mounts: &mut [Mount], label: &str) {
    const WITHOUT: [&str; 5] = ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"];
    for mount in mounts {
        let MountKind::Filesystem {
            fstype, options, ..
        } = &mut mount.kind
        else {
            continue;
        };
        if !WITHOUT.contains(&fstype.as_str()) && !has(options, "context") {
            options.push(("context".to_owned(), Some(label.to_owned())));
        }
    }
}

pub fn has(options: &[Parameter], key: &str) -> bool {
    options.iter().any(|(other, _)| other == key)
}

/// All in one string, as mount(2) takes them.
pub fn joined(options: &[Parameter]) -> String {
    let one = |(key, value): &Parameter| match value {
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    };
    let all: Vec<String> = options.iter().map(one).collect();
    all.join(",")
}

fn one(
    i: usize,
    asked: &Asked,
    ask: &Ask,
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<Mount> {
    let field = format!("mounts[{i}]");
    let destination = asked.destination();
    if !destination.is_absolute() {
        warnings.push(format!(
            "{field}.destination: {destination:?} is not absolute: taken from the container's root"
        ));
    }
    let destination = clean(destination);
    let options = Options::read(asked.options().as_deref().unwrap_or_default());
    let kind = kind(
        &field,
        asked,
        &destination,
        &options,
        ask,
        surroundings,
        warnings,
    )?;
    if let Some(j) = options.copy_up
        && !matches!(&kind, MountKind::Filesystem { copy_up: true, .. })
    {
        bail!("{field}.options[{j}]: tmpcopyup is for a new file system of type tmpfs only");
    }
    if let Some((j, _)) = options.id_map
        && kind.id_mapped().is_none()
    {
        bail!(
            "{field}.options[{j}] {:?}: only bind mounts can be id-mapped",
            asked.options().as_deref().unwrap_or_default()[j]
        );
    }
    Ok(Mount {
        field,
        destination,
        kind,
        attr: options.attr,
        recursive_attr: options.recursive_attr,
        propagation: options.propagation,
    })
}

fn kind(
    field: &str,
    asked: &Asked,
    destination: &Path,
    options: &Options,
    ask: &Ask,
    surroundings: &Surroundings,
    warnings: &mut Vec<String>,
) -> Result<MountKind> {
    let fstype = asked.typ().as_deref().unwrap_or_default();
    let source = asked.source().as_deref().unwrap_or(Path::new(""));
    let bind = options.bind || fstype == "bind";
    if let (true, Some(foreign)) = (bind, options.data.first()) {
        bail!(
            "{field}.options[{}] {:?}: bind mounts cannot have any filesystem-specific options applied",
            foreign.at,
            foreign.word()
        );
    }
    if options.remount {
        return Ok(MountKind::Remount {
            // Of a bind mount, nothing but its own flags.
            options: match bind {
                true => Vec::new(),
                false => options.parameters(options.readonly, true),
            },
        });
    }
    match fstype {
        _ if bind => {
            ensure!(
                !source.as_os_str().is_empty(),
                "{field}.source is missing: a bind mount needs one"
            );
            Ok(MountKind::Bind {
                source: ask.bundle.join(source),
                recursive: options.recursive,
                id_map: mount_id_map(asked, options, surroundings),
            })
        }
        "cgroup" | "cgroup2" => {
            for foreign in &options.data {
                warnings.push(format!(
                    "{field}.options[{}]: {:?} has no effect on the container's cgroup: ignored",
                    foreign.at,
                    foreign.word()
                ));
            }
            Ok(MountKind::Cgroup {
                namespace: surroundings.cgroup_namespace,
            })
        }
        "" => bail!("{field}.type is missing: name a file system, or add `bind` to its options"),
        "none" => bail!(
            "{field}.type: \"none\" is no file system: name one, or add `bind` to its options"
        ),
        _ => {
            let copy_up = options.copy_up.is_some() && fstype == "tmpfs";
            // These are still to be filled (devices, mount points, what was there): the mount becomes
            // read-only, the file system does not. So it is with runc.
            let filled_later = fstype == "tmpfs" || destination == Path::new("/dev");
            let readonly = options.attr.set & RDONLY != 0 && !filled_later;
            Ok(MountKind::Filesystem {
                fstype: fstype.to_owned(),
                source: source.to_string_lossy().into_owned(),
                options: options.parameters(readonly.then_some(true), false),
                copy_up,
            })
        }
    }
}

/// runtime-spec config.md#mounts, `uidMappings`: the option should be there with mappings, but
/// mappings alone were enough before it existed.
fn mount_id_map(
    asked: &Asked,
    options: &Options,
    surroundings: &Surroundings,
) -> Option<MountIdMap> {
    let (uids, gids) = (id_map(asked.uid_mappings()), id_map(asked.gid_mappings()));
    let own = !uids.is_empty() || !gids.is_empty();
    if !own && options.id_map.is_none() {
        return None;
    }
    let like_the_container = uids == surroundings.uid_map && gids == surroundings.gid_map;
    Some(MountIdMap {
        recursive: matches!(options.id_map, Some((_, true))),
        ids: match own && !like_the_container {
            true => MountIds::Own { uids, gids },
            false => MountIds::Container,
        },
    })
}

/// What a word of `options` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Attr(Change),
    /// The same for all mounts below, too.
    Recursive(Change),
    Propagation(u64),
    Bind {
        recursive: bool,
    },
    Remount,
    CopyUp,
    /// A flag of the file system, not of the mount, and its opposite.
    Superblock {
        opposite: &'static str,
        /// What a new file system is anyway.
        default: bool,
    },
    IdMap {
        recursive: bool,
    },
    /// Accepted, as mount(8) does; nothing to do.
    Nothing,
    /// A parameter of the file system.
    Data,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set(u64),
    Clear(u64),
    Atime(u64),
    NotAtime(u64),
}

impl Change {
    fn apply(self, attr: &mut Attr) {
        match self {
            Change::Set(bit) => {
                attr.set |= bit;
                attr.clear &= !bit;
            }
            Change::Clear(bit) => {
                attr.set &= !bit;
                attr.clear |= bit;
            }
            Change::Atime(value) => {
                attr.set = attr.set & !ATIME | value;
                attr.clear |= ATIME;
            }
            Change::NotAtime(value) => {
                if attr.set & ATIME == value {
                    attr.set &= !ATIME;
                }
                attr.clear |= ATIME;
            }
        }
    }
}

/// The table of runtime-spec config.md#linux-mount-options.
fn meaning(word: &str) -> Word {
    if let Some(change) = change(word) {
        return Word::Attr(change);
    }
    if let Some(change) = word.strip_prefix('r').and_then(change) {
        return Word::Recursive(change);
    }
    let known = WORDS.iter().find(|(known, _)| *known == word);
    known.map_or(Word::Data, |(_, meaning)| *meaning)
}

fn change(word: &str) -> Option<Change> {
    let known = CHANGES.iter().find(|(known, _)| *known == word);
    known.map(|(_, change)| *change)
}

/// All words that mean something here, sorted; others are for the file system.
pub fn words() -> Vec<String> {
    let changes = CHANGES.iter().map(|(word, _)| *word);
    let mut all: Vec<String> = changes
        .clone()
        .map(|word| format!("r{word}"))
        .chain(
            changes
                .chain(WORDS.iter().map(|(word, _)| *word))
                .map(String::from),
        )
        .collect();
    all.sort();
    all
}

const WORDS: &[(&str, Word)] = {
    use Word::{Bind, CopyUp, IdMap, Nothing, Propagation, Remount};
    const fn superblock(opposite: &'static str, default: bool) -> Word {
        Word::Superblock { opposite, default }
    }
    let (private, shared) = (libc::MS_PRIVATE, libc::MS_SHARED);
    let (slave, unbindable) = (libc::MS_SLAVE, libc::MS_UNBINDABLE);
    let all = libc::MS_REC;
    &[
        ("private", Propagation(private)),
        ("shared", Propagation(shared)),
        ("slave", Propagation(slave)),
        ("unbindable", Propagation(unbindable)),
        ("rprivate", Propagation(private | all)),
        ("rshared", Propagation(shared | all)),
        ("rslave", Propagation(slave | all)),
        ("runbindable", Propagation(unbindable | all)),
        ("bind", Bind { recursive: false }),
        ("rbind", Bind { recursive: true }),
        ("remount", Remount),
        ("tmpcopyup", CopyUp),
        ("sync", superblock("async", false)),
        ("async", superblock("sync", true)),
        ("dirsync", superblock("", false)),
        ("lazytime", superblock("nolazytime", false)),
        ("nolazytime", superblock("lazytime", true)),
        ("mand", superblock("nomand", false)),
        ("nomand", superblock("mand", true)),
        ("idmap", IdMap { recursive: false }),
        ("ridmap", IdMap { recursive: true }),
        ("defaults", Nothing),
        // i_version is the file system's own affair since Linux 4.16 (mount(8)); what is not found
        // out by mount(2) is not said by it, loud or silent.
        ("iversion", Nothing),
        ("noiversion", Nothing),
        ("silent", Nothing),
        ("loud", Nothing),
    ]
};

/// The words that also exist with an `r` before them, for a whole tree.
const CHANGES: &[(&str, Change)] = {
    use Change::{Atime, Clear, NotAtime, Set};
    &[
        ("ro", Set(RDONLY)),
        ("rw", Clear(RDONLY)),
        ("nosuid", Set(libc::MOUNT_ATTR_NOSUID)),
        ("suid", Clear(libc::MOUNT_ATTR_NOSUID)),
        ("nodev", Set(libc::MOUNT_ATTR_NODEV)),
        ("dev", Clear(libc::MOUNT_ATTR_NODEV)),
        ("noexec", Set(libc::MOUNT_ATTR_NOEXEC)),
        ("exec", Clear(libc::MOUNT_ATTR_NOEXEC)),
        ("nodiratime", Set(libc::MOUNT_ATTR_NODIRATIME)),
        ("diratime", Clear(libc::MOUNT_ATTR_NODIRATIME)),
        ("nosymfollow", Set(libc::MOUNT_ATTR_NOSYMFOLLOW)),
        ("symfollow", Clear(libc::MOUNT_ATTR_NOSYMFOLLOW)),
        ("relatime", Atime(libc::MOUNT_ATTR_RELATIME)),
        ("norelatime", NotAtime(libc::MOUNT_ATTR_RELATIME)),
        ("noatime", Atime(libc::MOUNT_ATTR_NOATIME)),
        ("atime", NotAtime(libc::MOUNT_ATTR_NOATIME)),
        ("strictatime", Atime(libc::MOUNT_ATTR_STRICTATIME)),
        ("nostrictatime", NotAtime(libc::MOUNT_ATTR_STRICTATIME)),
    ]
};

/// A word that is the file system's own.
struct Datum<'a> {
    /// Its index in `options`.
    at: usize,
    key: &'a str,
    value: Option<&'a str>,
}

impl Datum<'_> {
    fn word(&self) -> String {
        match self.value {
            Some(value) => format!("{}={value}", self.key),
            None => self.key.to_owned(),
        }
    }
}

/// mount(2), which runc uses, hands all options over as one string, and the kernel cuts it at
/// commas; fsconfig(2) takes one at a time. A comma in quotes (SELinux contexts) or after a backslash
/// (paths of overlay) is a part of the value.
fn parts(word: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let cut = move |c| {
        let cut = c == ',' && !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        cut
    };
    word.split(cut).filter(|part| !part.is_empty())
}

/// `options`, read.
#[derive(Default)]
struct Options<'a> {
    attr: Attr,
    recursive_attr: Attr,
    propagation: Vec<u64>,
    bind: bool,
    recursive: bool,
    remount: bool,
    /// Index of `tmpcopyup`.
    copy_up: Option<usize>,
    /// Index of `idmap` or `ridmap`, and which it is.
    id_map: Option<(usize, bool)>,
    /// The last of `ro` and `rw`.
    readonly: Option<bool>,
    /// Flags of the file system, the last of each, and whether they are what a new one has anyway.
    superblock: Vec<(&'a str, bool)>,
    data: Vec<Datum<'a>>,
}

impl<'a> Options<'a> {
    fn read(words: &'a [String]) -> Self {
        let mut all = Options::default();
        for (at, word) in words.iter().enumerate() {
            match meaning(word) {
                Word::Attr(change) => {
                    change.apply(&mut all.attr);
                    match change {
                        Change::Set(RDONLY) => all.readonly = Some(true),
                        Change::Clear(RDONLY) => all.readonly = Some(false),
                        _ => {}
                    }
                }
                Word::Recursive(change) => change.apply(&mut all.recursive_attr),
                Word::Propagation(flags) => all.propagation.push(flags),
                Word::Bind { recursive } => {
                    all.bind = true;
                    // Flags add up: `rbind` stays, whatever follows.
                    all.recursive |= recursive;
                }
                Word::Remount => all.remount = true,
                Word::CopyUp => all.copy_up = Some(at),
                Word::Superblock { opposite, default } => {
                    all.superblock
                        .retain(|(other, _)| other != word && *other != opposite);
                    all.superblock.push((word, default));
                }
                Word::IdMap { recursive } => all.id_map = Some((at, recursive)),
                Word::Nothing => {}
                Word::Data => all.data.extend(parts(word).map(|part| {
                    let (key, value) = match part.split_once('=') {
                        Some((key, value)) => (key, Some(value)),
                        None => (part, None),
                    };
                    Datum { at, key, value }
                })),
            }
        }
        all
    }

    /// Parameters of the file system. Defaults are said only to one that exists.
    fn parameters(&self, readonly: Option<bool>, exists: bool) -> Vec<Parameter> {
        let readonly = readonly.map(|yes| if yes { "ro" } else { "rw" });
        let said = self.superblock.iter().filter(|(_, d)| exists || !d);
        let flags = readonly.into_iter().chain(said.map(|(word, _)| *word));
        let data = self.data.iter();
        flags
            .map(|word| (word.to_owned(), None))
            .chain(data.map(|d| (d.key.to_owned(), d.value.map(str::to_owned))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::ask;
    use super::*;
    use serde_json::{Value, json};

    fn plan(mount: Value) -> Result<(Mount, Vec<String>)> {
        let asked: Asked = serde_json::from_value(mount)?;
        let mut warnings = Vec::new();
        let mut mounts = draw(&[asked], &ask(), &surroundings(true), &mut warnings)?;
        Ok((mounts.remove(0), warnings))
    }

    fn surroundings(cgroup_namespace: bool) -> Surroundings<'static> {
        const MAP: &[IdMap] = &[IdMap {
            container: 0,
            host: 100_000,
            size: 65_536,
        }];
        Surroundings {
            cgroup_namespace,
            uid_map: MAP,
            gid_map: MAP,
        }
    }

    fn tmpfs(options: &[&str]) -> Mount {
        let mount =
            json!({"destination": "/m", "type": "tmpfs", "source": "s", "options": options});
        plan(mount).unwrap().0
    }

    fn bind(options: &[&str]) -> Mount {
        let mount = json!({"destination": "/m", "source": "/s", "options": options});
        plan(mount).unwrap().0
    }

    fn parameters(mount: &Mount) -> Vec<String> {
        match &mount.kind {
            MountKind::Filesystem { options, .. } | MountKind::Remount { options } => options
                .iter()
                .map(|(key, value)| match value {
                    Some(value) => format!("{key}={value}"),
                    None => key.clone(),
                })
                .collect(),
            _ => vec![],
        }
    }

    #[test]
    fn words_become_attributes_and_the_last_wins() {
        for (options, set, clear) in [
            (&["defaults"][..], 0, 0),
            (&["ro"], 0x1, 0),
            (&["rw"], 0, 0x1),
            (&["ro", "rw"], 0, 0x1),
            (&["rw", "ro"], 0x1, 0),
            (&["nosuid", "nodev", "noexec"], 0xe, 0),
            (
                &["nosuid", "nodev", "noexec", "suid", "dev", "exec"],
                0,
                0xe,
            ),
            (&["nodiratime"], 0x80, 0),
            (&["nodiratime", "diratime"], 0, 0x80),
            (&["nosymfollow"], 0x20_0000, 0),
            (&["symfollow"], 0, 0x20_0000),
            (&["relatime"], 0, 0x70),
            (&["noatime"], 0x10, 0x70),
            (&["strictatime"], 0x20, 0x70),
            (&["noatime", "strictatime"], 0x20, 0x70),
            (&["strictatime", "relatime"], 0, 0x70),
            (&["noatime", "atime"], 0, 0x70),
            (&["strictatime", "nostrictatime"], 0, 0x70),
            (&["noatime", "nostrictatime"], 0x10, 0x70),
            (&["noatime", "norelatime"], 0x10, 0x70),
            (&["silent", "loud", "iversion", "noiversion"], 0, 0),
        ] {
            let mount = bind(&[&["bind"][..], options].concat());
            assert_eq!(mount.attr, Attr { set, clear }, "{options:?}");
            assert_eq!(mount.recursive_attr, Attr::default(), "{options:?}");
        }
    }

    #[test]
    fn every_attribute_has_a_recursive_twin() {
        let words = [
            "ro",
            "rw",
            "suid",
            "nosuid",
            "dev",
            "nodev",
            "exec",
            "noexec",
            "relatime",
            "norelatime",
            "noatime",
            "atime",
            "strictatime",
            "nostrictatime",
            "diratime",
            "nodiratime",
            "symfollow",
            "nosymfollow",
        ];
        for word in words {
            let (here, below) = (bind(&["bind", word]), bind(&["rbind", &format!("r{word}")]));
            assert_eq!(below.recursive_attr, here.attr, "{word}");
            assert_eq!(below.attr, Attr::default(), "{word}");
        }
        let both = bind(&["rbind", "rro", "rnosuid", "rrw", "ro"]);
        assert_eq!(both.recursive_attr, Attr { set: 2, clear: 1 });
        assert_eq!(both.attr, Attr { set: 1, clear: 0 });
    }

    #[test]
    fn propagation_is_a_list_in_its_order() {
        let words = [
            "private",
            "rprivate",
            "shared",
            "rshared",
            "slave",
            "rslave",
            "unbindable",
            "runbindable",
        ];
        let (p, h, s, u, rec) = (1 << 18, 1 << 20, 1 << 19, 1 << 17, 1 << 14);
        assert_eq!(
            tmpfs(&words).propagation,
            [p, p | rec, h, h | rec, s, s | rec, u, u | rec]
        );
    }

    #[test]
    fn the_rest_are_parameters_of_the_file_system() {
        for (options, expected) in [
            (
                &["size=64k", "mode=755", "x"][..],
                &["size=64k", "mode=755", "x"][..],
            ),
            (&["a=b=c", "e="], &["a=b=c", "e="]),
            (
                &["size=1,mode=700", "a=\"b,c\""],
                &["size=1", "mode=700", "a=\"b,c\""],
            ),
            (&["size=1", "ro", "nosuid"], &["size=1"]),
            (&["ro", "rw"], &[]),
            (
                &["sync", "dirsync", "lazytime", "mand"],
                &["sync", "dirsync", "lazytime", "mand"],
            ),
            (
                &["sync", "async", "lazytime", "nolazytime", "mand", "nomand"],
                &[],
            ),
            (&["async", "sync"], &["sync"]),
            (&["defaults", "silent", "iversion"], &[]),
        ] {
            assert_eq!(parameters(&tmpfs(options)), expected, "{options:?}");
        }
    }

    #[test]
    fn a_remount_says_to_the_file_system_what_was_said() {
        for (options, expected) in [
            (&["remount", "ro", "nosuid"][..], &["ro"][..]),
            (
                &["rw", "remount", "async", "size=1"],
                &["rw", "async", "size=1"],
            ),
            (&["remount", "nodev"], &[]),
            (&["remount", "bind", "ro", "sync"], &[]),
        ] {
            let mount = tmpfs(options);
            assert!(matches!(mount.kind, MountKind::Remount { .. }));
            assert_eq!(parameters(&mount), expected, "{options:?}");
        }
    }

    #[test]
    fn a_bind_is_made_by_option_or_type() {
        for (fstype, options, source, expected, recursive) in [
            (Some("bind"), &[][..], "/s", "/s", false),
            (Some("none"), &["bind"], "/s", "/s", false),
            (None, &["rbind"], "/proc/self/fd/3", "/proc/self/fd/3", true),
            (
                Some("tmpfs"),
                &["rbind", "bind"],
                "data/x",
                "/bundle/data/x",
                true,
            ),
            (
                Some("bind"),
                &["sync", "lazytime"],
                "./d",
                "/bundle/./d",
                false,
            ),
        ] {
            let mount =
                json!({"destination": "/m", "type": fstype, "source": source, "options": options});
            let kind = plan(mount).unwrap().0.kind;
            let expected = MountKind::Bind {
                source: expected.into(),
                recursive,
                id_map: None,
            };
            assert_eq!(kind, expected, "{fstype:?} {options:?}");
        }
    }

    #[test]
    fn ids_of_a_bind_are_mapped_as_it_says_or_as_the_container() {
        let line = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 65536}]);
        let own = |host| {
            let ids = vec![IdMap {
                container: 0,
                host,
                size: 65536,
            }];
            let (uids, gids) = (ids.clone(), ids);
            MountIds::Own { uids, gids }
        };
        for (options, host, recursive, ids) in [
            (&["bind", "idmap"][..], None, false, MountIds::Container),
            (&["rbind", "ridmap"], None, true, MountIds::Container),
            (&["idmap", "ridmap"], None, true, MountIds::Container),
            (&["ridmap", "idmap"], None, false, MountIds::Container),
            (&["idmap"], Some(100_000), false, MountIds::Container),
            (&["ridmap"], Some(5), true, own(5)),
            (&[], Some(5), false, own(5)),
        ] {
            let mut mount = json!({"destination": "/m", "type": "bind", "source": "/s"});
            mount["options"] = json!(options);
            if let Some(host) = host {
                mount["uidMappings"] = line(host);
                mount["gidMappings"] = line(host);
            }
            let kind = plan(mount).unwrap().0.kind;
            let expected = MountIdMap { recursive, ids };
            assert_eq!(kind.id_mapped(), Some(&expected), "{options:?} {host:?}");
        }
        assert_eq!(bind(&["rbind"]).kind.id_mapped(), None);
    }

    #[test]
    fn a_readonly_file_system_says_so_before_its_own_words() {
        for (fstype, options, expected) in [
            ("sysfs", &["ro"][..], &["ro"][..]),
            ("ext4", &["data=journal", "ro"], &["ro", "data=journal"]),
            (
                "overlay",
                &["lowerdir=/a\\,b:/c,upperdir=/u,index=off", "ro"],
                &["ro", "lowerdir=/a\\,b:/c", "upperdir=/u", "index=off"],
            ),
        ] {
            let asked =
                json!({"destination": "/m", "type": fstype, "source": "s", "options": options});
            assert_eq!(parameters(&plan(asked).unwrap().0), expected, "{fstype}");
        }
    }

    #[test]
    fn a_file_system_that_is_filled_later_is_not_readonly_itself() {
        let copied = tmpfs(&["ro", "tmpcopyup"]);
        let expected = MountKind::Filesystem {
            fstype: "tmpfs".to_owned(),
            source: "s".to_owned(),
            options: vec![],
            copy_up: true,
        };
        assert_eq!((copied.kind, copied.attr.set), (expected, 1));
        let dev = json!({"destination": "/dev/", "type": "tmpfs", "options": ["ro", "mode=755"]});
        let dev = plan(dev).unwrap().0;
        assert_eq!(
            (parameters(&dev), dev.attr.set),
            (vec!["mode=755".to_owned()], 1)
        );
    }

    #[test]
    fn the_cgroup_is_the_containers_own() {
        for fstype in ["cgroup", "cgroup2"] {
            let asked = json!({"destination": "/c", "type": fstype, "options": ["ro", "x=y"]});
            let (mount, warnings) = plan(asked.clone()).unwrap();
            assert_eq!(mount.kind, MountKind::Cgroup { namespace: true });
            assert_eq!(mount.attr.set, 1);
            assert_eq!(
                warnings,
                ["mounts[0].options[1]: \"x=y\" has no effect on the container's cgroup: ignored"]
            );
            let asked = [serde_json::from_value(asked).unwrap()];
            let shared = draw(&asked, &ask(), &surroundings(false), &mut vec![]);
            let shared = shared.unwrap().remove(0);
            assert_eq!(shared.kind, MountKind::Cgroup { namespace: false });
        }
    }

    #[test]
    fn a_destination_is_inside_the_container() {
        for (asked, cleaned, warnings) in [
            ("/a/b", "/a/b", &[][..]),
            ("/../../a/./b/", "/a/b", &[]),
            (
                "a",
                "/a",
                &["mounts[0].destination: \"a\" is not absolute: taken from the container's root"],
            ),
        ] {
            let (mount, said) = plan(json!({"destination": asked, "type": "tmpfs"})).unwrap();
            assert_eq!(mount.destination, Path::new(cleaned));
            assert_eq!(said, warnings);
        }
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        for (mount, message) in [
            (
                json!({"type": "bind", "source": "/s", "options": ["ro", "size=1m"]}),
                "mounts[0].options[1] \"size=1m\": bind mounts cannot have any \
                 filesystem-specific options applied",
            ),
            (
                json!({"type": "bind"}),
                "mounts[0].source is missing: a bind mount needs one",
            ),
            (
                json!({"source": "/s", "options": ["ro"]}),
                "mounts[0].type is missing: name a file system, or add `bind` to its options",
            ),
            (
                json!({"type": "none", "options": ["rshared"]}),
                "mounts[0].type: \"none\" is no file system: name one, or add `bind` to its options",
            ),
            (
                json!({"type": "proc", "options": ["ro", "tmpcopyup"]}),
                "mounts[0].options[1]: tmpcopyup is for a new file system of type tmpfs only",
            ),
            (
                json!({"type": "tmpfs", "options": ["ro", "ridmap"]}),
                "mounts[0].options[1] \"ridmap\": only bind mounts can be id-mapped",
            ),
            (
                json!({"type": "bind", "source": "/s", "options": ["bind", "remount", "idmap"]}),
                "mounts[0].options[2] \"idmap\": only bind mounts can be id-mapped",
            ),
        ] {
            let mut asked = mount.clone();
            asked["destination"] = "/m".into();
            assert_eq!(plan(asked).unwrap_err().to_string(), message, "{mount}");
        }
    }

    #[test]
    fn a_label_goes_to_file_systems_that_can_have_one() {
        let of = |fstype: &str, options: &[&str]| {
            let asked =
                json!({"destination": "/m", "type": fstype, "source": "s", "options": options});
            let mut mounts = vec![plan(asked).unwrap().0];
            label(&mut mounts, "u:r:t:s0:c1,c2");
            match mounts.remove(0).kind {
                MountKind::Filesystem { options, .. } => options
                    .iter()
                    .filter(|(key, _)| key == "context")
                    .filter_map(|(_, value)| value.clone())
                    .collect(),
                _ => Vec::new(),
            }
        };
        for fstype in ["tmpfs", "devpts", "ext4"] {
            assert_eq!(of(fstype, &[]), ["u:r:t:s0:c1,c2"], "{fstype}");
            assert_eq!(of(fstype, &["context=\"own\""]), ["\"own\""], "{fstype}");
        }
        for fstype in ["proc", "sysfs", "mqueue", "cgroup"] {
            assert_eq!(of(fstype, &[]), [""; 0], "{fstype}");
        }
        assert_eq!(of("none", &["bind"]), [""; 0]);
    }
}

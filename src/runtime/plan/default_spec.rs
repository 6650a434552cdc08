//! Which config.json does `spec` write? One that runs as it is, given a rootfs with `sh` in it.
//!
//! The content is what users of runc know from `runc spec`, cgroup v2 taken for granted (a cgroup
//! namespace, so that the container sees its own cgroup as the root). Tabs as there: people diff
//! these files.

/// The text of the default config.json.
pub fn text() -> String {
    TEXT.to_owned()
}

/// The same for the ordinary user `uid` of group `gid`, without any set-up by root: a user namespace
/// of that one id, the host's network, and so the host's /sys, and no resources.
pub fn rootless_text(uid: u32, gid: u32) -> String {
    let map = |name: &str, id: u32| {
        format!(
            "\t\t\"{name}\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\
             \t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],\n"
        )
    };
    let maps = map("uidMappings", uid) + &map("gidMappings", gid);
    // Group 5 does not exist there.
    let text = TEXT.replace(",\n\t\t\t\t\"gid=5\"", "");
    let text = text.replace("\"type\": \"network\"", "\"type\": \"user\"");
    let text = between(&text, "\t\t\"resources\"", "\t\t\"namespaces\"", &maps);
    between(
        &text,
        SYS,
        "\t\t{\n\t\t\t\"destination\": \"/sys/fs/cgroup\"",
        HOSTS_SYS,
    )
}

/// `text` with what is between `begin`, itself too, and `end` replaced.
fn between(text: &str, begin: &str, end: &str, by: &str) -> String {
    let Some((before, rest)) = text.split_once(begin) else {
        return text.to_owned();
    };
    match rest.find(end) {
        Some(at) => [before, by, &rest[at..]].concat(),
        None => text.to_owned(),
    }
}

const SYS: &str = "\t\t{\n\t\t\t\"destination\": \"/sys\",";

const HOSTS_SYS: &str = r#"		{
			"destination": "/sys",
			"type": "none",
			"source": "/sys",
			"options": [
				"rbind",
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
"#;

const TEXT: &str = r#"{
	"ociVersion": "1.3.0",
	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "sc-runtime",
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620",
				"gid=5"
			]
		},
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
		{
			"destination": "/sys",
			"type": "sysfs",
			"source": "sysfs",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],
	"linux": {
		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},
		"namespaces": [
			{
				"type": "pid"
			},
			{
				"type": "network"
			},
			{
				"type": "ipc"
			},
			{
				"type": "uts"
			},
			{
				"type": "mount"
			},
			{
				"type": "cgroup"
			}
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}
"#;

#[cfg(test)]
mod tests {
    use crate::runtime::plan::{self, default_spec};
    use crate::runtime::{config, state, validate};

    #[test]
    fn the_default_is_valid_and_can_be_planned() {
        let (spec, warnings) = config::parse(default_spec::text().as_bytes()).unwrap();
        assert_eq!(warnings, [""; 0]);
        assert_eq!(spec.version(), state::OCI_VERSION);
        let ask = plan::example_ask();
        assert_eq!(validate::check(&spec, &ask).unwrap(), [""; 0]);
        plan::draw(&spec, &ask).unwrap();
    }

    #[test]
    fn an_ordinary_users_maps_its_own_ids_and_keeps_the_hosts_network() {
        let (own, all) = (default_spec::rootless_text(1000, 100), default_spec::text());
        let (own_lines, all_lines): (Vec<_>, Vec<_>) =
            (own.lines().collect(), all.lines().collect());
        let added: Vec<_> = own_lines
            .iter()
            .filter(|l| !all_lines.contains(l))
            .map(|l| l.trim())
            .collect();
        assert_eq!(
            added,
            [
                "\"mode=0620\"",
                "\"type\": \"none\",",
                "\"source\": \"/sys\",",
                "\"rbind\",",
                "\"uidMappings\": [",
                "\"containerID\": 0,",
                "\"hostID\": 1000,",
                "\"size\": 1",
                "\"gidMappings\": [",
                "\"containerID\": 0,",
                "\"hostID\": 100,",
                "\"size\": 1",
                "\"type\": \"user\"",
            ]
        );
        for gone in ["resources", "\"network\"", "gid=5", "sysfs"] {
            assert!(!own.contains(gone), "{gone}");
        }
        let (spec, warnings) = config::parse(own.as_bytes()).unwrap();
        assert_eq!(warnings, [""; 0]);
        let ask = super::super::draw::tests::rootless();
        assert_eq!(validate::check(&spec, &ask).unwrap(), [""; 0]);
    }

    #[test]
    fn the_text_is_laid_out_as_a_go_program_would() {
        let tree: serde_json::Value = serde_json::from_str(&default_spec::text()).unwrap();
        let mut out = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut printer = serde_json::Serializer::with_formatter(&mut out, tabs);
        serde::Serialize::serialize(&tree, &mut printer).unwrap();
        // Keys are in the specification's order, which a tree does not keep: compare the lines.
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text
                .lines()
                .map(|l| l.trim_end_matches(',').to_owned())
                .collect();
            lines.sort();
            lines
        };
        let printed = String::from_utf8(out).unwrap();
        assert_eq!(sorted(&default_spec::text()), sorted(&printed));
    }
}

use super::*;

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/x\n";
const GROUP: &str = "root:x:0:\nlog:x:5000:web\n";

fn image(execution: &str) -> ImageConfig {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{execution},
            "rootfs":{{"type":"layers","diff_ids":[]}}}}"#
    );
    ImageConfig::parse(text.as_bytes()).unwrap()
}

fn ask() -> Ask {
    Ask {
        passwd: PASSWD.to_owned(),
        group: GROUP.to_owned(),
        ..Ask::default()
    }
}

fn made(execution: &str) -> Made {
    make(&image(execution), &ask()).unwrap()
}

fn why(execution: &str) -> String {
    format!("{:#}", make(&image(execution), &ask()).unwrap_err())
}

#[test]
fn entrypoint_and_cmd_are_the_command() {
    for (execution, expected) in [
        (r#"{"Cmd":["sh"]}"#, json!(["sh"])),
        (
            r#"{"Entrypoint":["e","1"],"Cmd":["c"]}"#,
            json!(["e", "1", "c"]),
        ),
        (r#"{"Entrypoint":["e"],"Cmd":null}"#, json!(["e"])),
    ] {
        assert_eq!(made(execution).config["process"]["args"], expected);
    }
    assert_eq!(
        why("{}"),
        "no command: the image has neither Entrypoint nor Cmd"
    );
}

#[test]
fn the_environment_is_the_images_completed() {
    let env = |execution: &str| made(execution).config["process"]["env"].clone();
    assert_eq!(env(r#"{"Cmd":["x"]}"#), json!([PATH, "HOME=/root"]));
    assert_eq!(
        env(r#"{"Cmd":["x"],"User":"web","Env":["A=1","PATH=/x","A=2","B","=c"]}"#),
        json!(["PATH=/x", "A=2", "HOME=/var/www"])
    );
    assert_eq!(
        env(r#"{"Cmd":["x"],"User":"7","Env":["HOME=/h"]}"#),
        json!([PATH, "HOME=/h"])
    );
}

#[test]
fn who_is_not_root_has_capabilities_in_the_bounding_set_only() {
    let sets = |user: &str| {
        let made = made(&format!(r#"{{"Cmd":["x"],"User":"{user}"}}"#));
        let sets = made.config["process"]["capabilities"]
            .as_object()
            .unwrap()
            .clone();
        sets.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(sets("root"), "bounding effective permitted");
    assert_eq!(sets("web"), "bounding");
}

#[test]
fn labels_become_annotations_but_not_those_that_programs_act_on() {
    let made = made(
        r#"{"Cmd":["x"],"StopSignal":"SIGINT","ExposedPorts":{"80/tcp":{},"8080":{}},
            "Labels":{"a":"b","org.opencontainers.image.author":"me","run.oci.hooks.stdout":"/x",
                      "org.systemd.property.ExecStart":"x"}}"#,
    );
    let expected = json!({
        "a": "b",
        "org.opencontainers.image.os": "linux",
        "org.opencontainers.image.architecture": "amd64",
        "org.opencontainers.image.author": "me",
        "org.opencontainers.image.created": "2026-01-02T03:04:05Z",
        "org.opencontainers.image.stopSignal": "SIGINT",
        "org.opencontainers.image.exposedPorts": "80/tcp,8080",
    });
    assert_eq!(made.config["annotations"], expected);
    assert_eq!(
        made.warnings,
        [
            "label \"org.systemd.property.ExecStart\" is left out: programs act on annotations of that name",
            "label \"run.oci.hooks.stdout\" is left out: programs act on annotations of that name",
        ]
    );
}

#[test]
fn paths_of_the_image_stay_in_it() {
    assert_eq!(made(r#"{"Cmd":["x"],"WorkingDir":"/a/./b/"}"#).cwd, "/a/b");
    for (execution, expected) in [
        (
            r#"{"Cmd":["x"],"WorkingDir":"a"}"#,
            "WorkingDir: \"a\" is not absolute",
        ),
        (
            r#"{"Cmd":["x"],"WorkingDir":"/a/../.."}"#,
            "WorkingDir: \"/a/../..\": the name leads out of the layer",
        ),
        (
            r#"{"Cmd":["x"],"Volumes":{"/":{}}}"#,
            "Volumes \"/\": is the root",
        ),
        (
            r#"{"Cmd":["x"],"User":"me"}"#,
            "User \"me\": no user \"me\" in the image's /etc/passwd",
        ),
    ] {
        assert_eq!(why(execution), expected);
    }
    let volume = made(r#"{"Cmd":["x"],"Volumes":{"/data":{}}}"#).config["mounts"][7].clone();
    assert_eq!(volume["destination"], "/data");
}

#[test]
fn without_root_ids_are_mapped_and_limits_left_out() {
    let maps = vec![(0, 1000, 1), (1, 100_000, 4999)];
    let ask = Ask {
        uid_map: maps.clone(),
        gid_map: maps,
        ..ask()
    };
    let made = make(&image(r#"{"Cmd":["x"],"User":"web"}"#), &ask).unwrap();
    assert_eq!(made.config["linux"]["uidMappings"][1]["hostID"], 100_000);
    assert_eq!(made.config["linux"]["resources"], json!({}));
    assert_eq!(
        made.config["process"]["user"]["additionalGids"],
        json!([33])
    );
    assert_eq!(
        made.warnings,
        ["groups [5000] of the image's user are not mapped and are left out"]
    );
}

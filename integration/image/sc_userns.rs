//! `sc run --userns auto`: ids that no other container has, over layers and volumes that all share.

use crate::place::{Place, text};
use crate::sc::{assert_nothing, command, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

tests! {
    files_have_the_ids_inside_that_they_have_on_the_disk ["busybox"],
    no_two_containers_have_an_id_in_common ["busybox"],
    it_has_a_network_of_its_own_and_can_be_reached ["busybox", "nft"],
    files_are_copied_committed_and_exported_with_their_ids ["busybox"],
    volumes_are_shared_with_containers_of_other_ids ["busybox"],
    what_cannot_be_is_told ["busybox"],
}

/// The first id of `containers`, and how many there are.
const FIRST: u32 = 1_000_000;

/// With /etc/subuid and /etc/subgid that have this line.
fn with_ids(place: &Place, line: &str, args: &[&str]) -> Result<Output> {
    // A file of this call's own: others may come meanwhile.
    let script = "f=subid.$$; printf %s \"$0\" >$f; for to in /etc/subuid /etc/subgid; do mount --bind $f $to; done; rm $f; exec \"$@\"";
    let sc = command(place, args);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec", script, line])
        .arg(sc.get_program())
        .args(sc.get_args());
    Ok(command.current_dir(&place.dir).output()?)
}

fn ok(place: &Place, args: &[&str]) -> Result<String> {
    let line = format!("containers:{FIRST}:200000\n");
    text(with_ids(place, &line, args)?).with_context(|| args.join(" "))
}

fn refused(place: &Place, line: &str, args: &[&str]) -> Result<String> {
    let output = with_ids(place, line, args)?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.code() == Some(125), "{args:?}: {said}");
    Ok(said.lines().last().unwrap_or_default().to_owned())
}

fn files_have_the_ids_inside_that_they_have_on_the_disk(place: &Place) -> Result<()> {
    with_image(place)?;
    let look = "cat /proc/self/uid_map /proc/self/gid_map; id -u; stat -c %u:%g /bin/busybox /etc/hosts; \
                touch /x; chown 7:8 /x; stat -c %u:%g /x; rm /etc/passwd; echo y >/etc/new; ls /sys/class/net; echo z >>/etc/hosts";
    let options = ["run", "--name", "own", "--network", "none", "--userns"];
    let said = ok(
        place,
        &[&options[..], &["auto", "busybox", "sh", "-c", look]].concat(),
    )?;
    let words: Vec<&str> = said.split_whitespace().collect();
    ensure!(
        words
            == [
                "0", "1000000", "65536", "0", "1000000", "65536", "0", "0:0", "0:0", "7:8", "lo"
            ],
        "{said}"
    );
    // The host knows no root of it; the layer has the ids that every container sees.
    let id = ok(place, &["ps", "-aq", "--no-trunc"])?;
    let upper = place.store.join("containers").join(id.trim()).join("upper");
    let meta = upper.join("x").metadata()?;
    ensure!((meta.uid(), meta.gid()) == (7, 8));
    ensure!(upper.join("etc/new").metadata()?.uid() == 0);
    let changes = ok(place, &["diff", "own"])?;
    ensure!(
        changes == "C /etc\nA /etc/new\nD /etc/passwd\nA /x\n",
        "{changes}"
    );
    ok(place, &["start", "-a", "own"])?;
    ok(place, &["rm", "own"])?;
    let small = ["auto:size=100", "-u", "joe", "busybox", "id"];
    let said = ok(
        place,
        &[
            &["run", "--rm", "--network", "none", "--userns"],
            &small[..],
        ]
        .concat(),
    )?;
    ensure!(said.starts_with("uid=7(joe) gid=8"), "{said}");
    assert_nothing(place)
}

fn no_two_containers_have_an_id_in_common(place: &Place) -> Result<()> {
    with_image(place)?;
    let first = |name: &str| -> Result<u32> {
        let map = ok(place, &["exec", name, "cat", "/proc/self/uid_map"])?;
        let word = map.split_whitespace().nth(1).context("no map")?;
        Ok(word.parse()?)
    };
    let run = |name: &str| {
        let options = [
            "run",
            "-d",
            "--name",
            name,
            "--network",
            "none",
            "--userns",
            "auto",
        ];
        ok(
            place,
            &[&options[..], &["busybox", "sleep", "1000"]].concat(),
        )
    };
    let names = ["one", "two", "three"];
    std::thread::scope(|scope| -> Result<()> {
        let all = names.map(|name| scope.spawn(move || run(name)));
        for one in all {
            one.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        }
        Ok(())
    })?;
    let mut ids = names
        .iter()
        .map(|name| first(name))
        .collect::<Result<Vec<_>>>()?;
    ids.sort_unstable();
    ensure!(ids == [FIRST, FIRST + 65_536, FIRST + 131_072], "{ids:?}");
    let said = refused(
        place,
        &format!("containers:{FIRST}:200000\n"),
        &[
            "run",
            "--userns",
            "auto",
            "--network",
            "none",
            "busybox",
            "true",
        ],
    )?;
    ensure!(said.contains("no 65536 in a row are left"), "{said}");
    // Whoever is killed: ids are free with the container, and not before.
    let freed = first("two")?;
    let id = ok(place, &["inspect", "--format", "{{.Id}}", "two"])?;
    let monitor = place.host("pgrep", ["-f", &format!("monitor {}", id.trim())])?;
    place.host("kill", ["-9", monitor.trim()])?;
    ok(place, &["exec", "two", "touch", "/there"])?;
    ok(place, &["rm", "-f", "two"])?;
    run("four")?;
    ensure!(first("four")? == freed);
    ok(place, &["rm", "-f", "one", "three", "four"])?;
    assert_nothing(place)
}

fn it_has_a_network_of_its_own_and_can_be_reached(place: &Place) -> Result<()> {
    with_image(place)?;
    let serve = "echo hello >/tmp/word; ip link set eth0 mtu 1400 && cat /sys/class/net/eth0/mtu; exec busybox httpd -f -p 80 -h /tmp";
    let script = serve.replace("ip link", "busybox ip link");
    let publish = [
        "-p",
        "127.0.0.1:28090:80",
        "--cap-add",
        "NET_ADMIN",
        "--userns",
        "auto",
        "busybox",
    ];
    ok(
        place,
        &[
            &["run", "-d", "--name", "web"],
            &publish[..],
            &["sh", "-c", &script],
        ]
        .concat(),
    )?;
    let fetch = "until busybox wget -q -O - http://127.0.0.1:28090/word; do test $((n += 1)) -lt 600; sleep 0.1; done";
    ensure!(place.sh(fetch)?.trim() == "hello");
    ensure!(ok(place, &["logs", "web"])? == "1400\n");
    // One without ids of its own reaches it by name.
    let fetch = [
        "busybox",
        "busybox",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web/word",
    ];
    ensure!(ok(place, &[&["run", "--rm"], &fetch[..]].concat())? == "hello\n");
    let join = ["--network", "container:web", "--userns", "auto", "busybox"];
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/word"];
    ensure!(ok(place, &[&["run", "--rm"], &join[..], &fetch].concat())? == "hello\n");
    ok(place, &["rm", "-f", "web"])?;
    assert_nothing(place)
}

fn files_are_copied_committed_and_exported_with_their_ids(place: &Place) -> Result<()> {
    with_image(place)?;
    let script = "mkdir /d; echo f >/d/f; chown -R 7:8 /d; touch /ready; sleep 1000";
    let options = [
        "--name",
        "box",
        "--network",
        "none",
        "--userns",
        "auto",
        "busybox",
    ];
    ok(
        place,
        &[&["run", "-d"], &options[..], &["sh", "-c", script]].concat(),
    )?;
    let ready = "until ls /ready; do sleep 0.05; done";
    ok(place, &["exec", "box", "sh", "-c", ready])?;
    fs::write(place.path("in"), "in\n")?;
    for state in ["running", "stopped"] {
        ok(place, &["cp", "in", &format!("box:/d/{state}")])?;
        ok(place, &["cp", "-a", "box:/d", state])?;
        let owners = place.sh(&format!("stat -c %u:%g {state}/f {state}/{state}"))?;
        ensure!(owners == "7:8\n0:0\n", "{state}: {owners}");
        ok(place, &["cp", "box:/d/f", "out"])?;
        ensure!(place.path("out").metadata()?.uid() == 0);
        if state == "running" {
            ok(place, &["stop", "-t", "0", "box"])?;
        }
    }
    ok(place, &["commit", "box", "made"])?;
    ok(place, &["export", "-o", "whole.tar", "box"])?;
    let listed = place.sh("tar --numeric-owner -tvf whole.tar | grep -c '7/8.* d/f'")?;
    ensure!(listed == "1\n", "{listed}");
    let look = ["stat", "-c", "%u:%g", "/d/f", "/d/stopped"];
    let said = ok(
        place,
        &[&["run", "--rm", "--network", "none", "made"], &look[..]].concat(),
    )?;
    ensure!(said == "7:8\n0:0\n", "{said}");
    ok(place, &["rm", "box"])?;
    assert_nothing(place)
}

fn volumes_are_shared_with_containers_of_other_ids(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = |ids: &[&str], script: &str| {
        let options = [
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            "data:/etc",
            "-v",
            "./host:/host",
        ];
        ok(
            place,
            &[&options[..], ids, &["busybox", "sh", "-c", script]].concat(),
        )
    };
    fs::create_dir(place.path("host"))?;
    // Filled from the image, as it is there.
    let look = "stat -c %u:%g /etc/passwd; touch /etc/mine; chown 7:8 /etc/mine; stat -c %u:%g /host; touch /host/x";
    let output = run(&["--userns", "auto"], &format!("{look} || echo closed"))?;
    ensure!(output == "0:0\n65534:65534\nclosed\n", "{output}");
    let meta = place.store.join("volumes/data/_data/mine").metadata()?;
    ensure!((meta.uid(), meta.gid()) == (7, 8));
    let look = "stat -c %u:%g /etc/passwd /etc/mine /host";
    ensure!(run(&[], look)? == "0:0\n7:8\n0:0\n");
    ensure!(run(&["--userns", "auto:size=9"], look)? == "0:0\n7:8\n65534:65534\n");
    ok(place, &["volume", "rm", "data"])?;
    assert_nothing(place)
}

fn what_cannot_be_is_told(place: &Place) -> Result<()> {
    with_image(place)?;
    let run = |line: &str, mode: &str| {
        let args = [
            "run",
            "--rm",
            "--network",
            "none",
            "--userns",
            mode,
            "busybox",
            "true",
        ];
        refused(place, line, &args)
    };
    let said = run("me:5:5\n", "auto")?;
    ensure!(
        said == "sc: --userns auto: /etc/subuid has no line for \"containers\", whose ids containers get: add one, such as containers:2147483647:2147483648, to /etc/subuid and to /etc/subgid",
        "{said}"
    );
    let line = "containers:100000:65536\n";
    for mode in ["auto:size=0", "auto:x", "nosuch", "host:x"] {
        ensure!(run(line, mode)?.starts_with(&format!("sc: --userns {mode:?}: ")));
    }
    let own = ["busybox", "cat", "/proc/self/uid_map"];
    let said = ok(
        place,
        &[
            &["run", "--rm", "--network", "none", "--userns", "host"],
            &own[..],
        ]
        .concat(),
    )?;
    ensure!(
        said.split_whitespace().eq(["0", "0", "4294967295"]),
        "{said}"
    );
    assert_nothing(place)
}

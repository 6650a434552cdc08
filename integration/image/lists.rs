//! `sc`: what is shown of containers: lists, templates, filters, use, events, sums.

use crate::place::Place;
use crate::sc::{assert_nothing, ok, refused, sc, with_image};
use crate::tests;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

tests! {
    ps_lists_what_is_asked_for ["busybox"],
    formats_are_tables_json_and_templates ["busybox"],
    inspect_knows_everything_that_has_a_name ["busybox"],
    top_shows_the_processes ["busybox", "ps"],
    stats_are_a_line_for_each_that_runs ["busybox"],
    every_change_is_an_event ["busybox"],
    sums_and_facts_are_shown ["busybox"],
    prune_removes_what_rests_and_nothing_else ["busybox"],
    shells_can_complete ["busybox", "bash"],
    a_typing_error_is_told_what_is_near ["busybox"],
}

fn ps_lists_what_is_asked_for(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "create", "--name", "first", "-l", "kind=a", "busybox", "true",
        ],
    )?;
    ok(
        place,
        &[
            "run", "-d", "--name", "second", "-l", "kind=b", "busybox", "sleep", "1000",
        ],
    )?;
    sc(
        place,
        &["run", "--name", "third", "busybox", "sh", "-c", "exit 5"],
    )?;
    for (options, expected) in [
        (&[][..], "second"),
        (&["-a"], "third second first"),
        (&["-l"], "third"),
        (&["-n", "2"], "third second"),
        (&["-a", "-f", "label=kind=a"], "first"),
        (&["-a", "-f", "label=kind"], "second first"),
        (&["-f", "status=created"], "first"),
        (
            &["-f", "status=exited", "-f", "status=running"],
            "third second",
        ),
        (&["-f", "exited=5"], "third"),
        (&["-a", "-f", "name=ir"], "third first"),
        (&["-a", "-f", "since=first"], "third second"),
        (&["-a", "-f", "before=second"], "first"),
        (
            &["-a", "-f", "ancestor=busybox", "-f", "name=first"],
            "first",
        ),
        (&["-a", "-f", "ancestor=other"], ""),
    ] {
        let args = [&["ps", "--format", "{{.Names}}"], options].concat();
        let said = ok(place, &args)?;
        let names: Vec<&str> = said.split_whitespace().collect();
        ensure!(names.join(" ") == expected, "{options:?}: {said}");
    }
    let said = refused(place, &["ps", "-f", "colour=red"], 1)?;
    ensure!(said.contains("known keys are id, name"), "{said}");
    ensure!(
        ok(place, &["ps", "-as"])?
            .lines()
            .next()
            .is_some_and(|head| head.ends_with("SIZE"))
    );
    ok(place, &["rm", "-f", "first", "second", "third"])?;
    assert_nothing(place)
}

fn formats_are_tables_json_and_templates(place: &Place) -> Result<()> {
    with_image(place)?;
    let id = ok(
        place,
        &[
            "create",
            "--name",
            "c_f",
            "-l",
            "a=b",
            "busybox",
            "echo",
            "a long command line",
        ],
    )?;
    let row: Value = serde_json::from_str(&ok(place, &["ps", "-a", "--format", "json"])?)?;
    ensure!(
        row["ID"] == id[..12] && row["Command"] == "\"echo a long command…\"",
        "{row}"
    );
    let full = ok(
        place,
        &["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Command}}"],
    )?;
    ensure!(
        full == format!("{} \"echo a long command line\"\n", id.trim()),
        "{full}"
    );
    let table = ok(
        place,
        &[
            "ps",
            "-a",
            "--format",
            "table {{.Names}}\\t{{.Label \"a\"}}",
        ],
    )?;
    ensure!(table == "NAMES   LABELS\nc_f     b\n", "{table}");
    let said = refused(place, &["ps", "-a", "--format", "{{.Nmaes}}"], 1)?;
    ensure!(
        said.contains("no field \"Nmaes\"") && said.contains("Names"),
        "{said}"
    );
    ensure!(
        ok(
            place,
            &[
                "inspect",
                "-f",
                "{{.State.Status}} {{json .Config.Labels}}",
                "c_f"
            ]
        )? == "created {\"a\":\"b\"}\n"
    );
    ok(place, &["rm", "c_f"])?;
    assert_nothing(place)
}

fn inspect_knows_everything_that_has_a_name(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(place, &["create", "--name", "c_c", "busybox", "true"])?;
    let all: Vec<Value> = serde_json::from_str(&ok(place, &["inspect", "c_c", "busybox"])?)?;
    ensure!(
        all[0]["Name"] == "c_c" && all[1]["RepoTags"].is_array(),
        "{all:?}"
    );
    ok(place, &["volume", "create", "data"])?;
    let said = ok(
        place,
        &["inspect", "-f", "{{.Name}} {{.Scope}}", "data", "bridge"],
    )?;
    ensure!(said == "data local\nbridge local\n", "{said}");
    refused(place, &["inspect", "--type", "volume", "busybox"], 1)?;
    let output = sc(place, &["inspect", "nosuch"])?;
    ensure!(output.status.code() == Some(1) && output.stdout == b"[]\n");
    ok(place, &["rm", "c_c"])?;
    assert_nothing(place)
}

fn top_shows_the_processes(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "c_t", "busybox", "sleep", "1234"],
    )?;
    let table = ok(place, &["top", "c_t"])?;
    ensure!(
        table.lines().count() == 2 && table.contains("sleep 1234"),
        "{table}"
    );
    let table = ok(place, &["top", "c_t", "-o", "pid,comm"])?;
    ensure!(
        table.contains("COMMAND") && table.contains("sleep"),
        "{table}"
    );
    ok(place, &["rm", "-f", "c_t"])?;
    refused(place, &["top", "c_t"], 1)?;
    assert_nothing(place)
}

fn stats_are_a_line_for_each_that_runs(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(place, &["create", "--name", "rests", "busybox", "true"])?;
    ok(
        place,
        &[
            "run",
            "-d",
            "--name",
            "busy",
            "busybox",
            "sh",
            "-c",
            "while :; do :; done",
        ],
    )?;
    let row: Value =
        serde_json::from_str(&ok(place, &["stats", "--no-stream", "--format", "json"])?)?;
    let percent = row["CPUPerc"]
        .as_str()
        .unwrap_or_default()
        .trim_end_matches('%');
    ensure!(
        row["Name"] == "busy" && percent.parse::<f64>()? > 5.0,
        "{row}"
    );
    ensure!(row["PIDs"] == "1", "{row}");
    let table = ok(place, &["stats", "--no-stream", "-a"])?;
    ensure!(
        table.starts_with("CONTAINER ID   NAME") && table.lines().count() == 3,
        "{table}"
    );
    ok(place, &["rm", "-f", "rests", "busy"])?;
    assert_nothing(place)
}

fn every_change_is_an_event(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "run", "--rm", "--name", "c_e", "-l", "a=b", "busybox", "true",
        ],
    )?;
    let said = ok(
        place,
        &[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--format",
            "{{.Action}}",
        ],
    )?;
    ensure!(said == "create\nstart\ndie\ndestroy\n", "{said}");
    let said = ok(
        place,
        &[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "event=die",
        ],
    )?;
    ensure!(
        said.contains(" container die ")
            && said.contains("a=b, execDuration=0, exitCode=0, image=busybox, name=c_e)"),
        "{said}"
    );
    let none = ok(
        place,
        &[
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "container=other",
        ],
    )?;
    ensure!(none.is_empty(), "{none}");
    assert_nothing(place)
}

fn sums_and_facts_are_shown(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &[
            "run",
            "--name",
            "c_d",
            "busybox",
            "sh",
            "-c",
            "seq 100000 >/big",
        ],
    )?;
    let rows = ok(place, &["system", "df", "--format", "json"])?;
    let rows = rows
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Value>, _>>()?;
    let containers = rows
        .iter()
        .find(|row| row["Type"] == "Containers")
        .context("no row")?;
    ensure!(
        containers["TotalCount"] == "1" && containers["Active"] == "0",
        "{containers}"
    );
    let reclaimable = containers["Reclaimable"].as_str().context("no text")?;
    ensure!(reclaimable.ends_with("B (100%)"), "{containers}");
    let kinds: Vec<&str> = rows.iter().filter_map(|row| row["Type"].as_str()).collect();
    ensure!(
        kinds == ["Images", "Containers", "Local Volumes"],
        "{kinds:?}"
    );
    df_knows_what_is_shared(place)?;
    let info = ok(place, &["info"])?;
    ensure!(
        info.contains("ContainersStopped: 1\n") && info.contains("CgroupVersion: 2\n"),
        "{info}"
    );
    ensure!(ok(place, &["system", "info", "--format", "{{.Images}}"])? == "2\n");
    ok(place, &["rm", "c_d"])?;
    assert_nothing(place)
}

/// Two images of the same layers, one of which has one more.
fn df_knows_what_is_shared(place: &Place) -> Result<()> {
    ok(place, &["commit", "c_d", "more"])?;
    ok(place, &["volume", "create", "kept"])?;
    let all = ok(place, &["system", "df", "-v", "--format", "json"])?;
    let mut all: Value = serde_json::from_str(&all)?;
    // Made within the same second, they have no order.
    let images = all["Images"].as_array_mut().context("no images")?;
    images.sort_by_key(|row| row["Repository"] == "busybox");
    let of = |kind: &str, key: &str| -> Vec<String> {
        let rows = all[kind].as_array().into_iter().flatten();
        rows.map(|row| row[key].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    ensure!(of("Images", "Repository") == ["more", "busybox"], "{all}");
    let (size, shared, own) = (
        of("Images", "Size"),
        of("Images", "SharedSize"),
        of("Images", "UniqueSize"),
    );
    ensure!(shared[0] == shared[1] && shared[1] == size[1], "{all}");
    ensure!(own[0] != "0B" && own[1] == "0B", "{all}");
    ensure!(of("Images", "Containers") == ["0", "1"], "{all}");
    ensure!(
        of("Containers", "Names") == ["c_d"]
            && of("Containers", "Status")[0].starts_with("Exited (0)")
    );
    ensure!(of("Volumes", "Name") == ["kept"] && of("Volumes", "Links") == ["0"]);
    let text = ok(place, &["system", "df", "-v"])?;
    for title in ["Images", "Containers", "Local Volumes"] {
        ensure!(
            text.contains(&format!("{title} space usage:\n\n")),
            "{text}"
        );
    }
    refused(place, &["system", "df", "-v", "--format", "{{.Type}}"], 1)?;
    ok(place, &["volume", "rm", "kept"]).map(drop)
}

fn prune_removes_what_rests_and_nothing_else(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(
        place,
        &["run", "-d", "--name", "runs", "busybox", "sleep", "1000"],
    )?;
    let made = ok(place, &["create", "--name", "made", "busybox", "true"])?;
    let kept = ok(
        place,
        &["create", "--name", "kept", "-l", "keep", "busybox", "true"],
    )?;
    let said = refused(place, &["container", "prune"], 1)?;
    ensure!(said.contains("--force"), "{said}");
    let said = ok(
        place,
        &["container", "prune", "-f", "--filter", "label=keep"],
    )?;
    ensure!(
        said.contains(kept.trim()) && !said.contains(made.trim()),
        "{said}"
    );
    let said = ok(place, &["container", "prune", "-f"])?;
    ensure!(
        said.starts_with(&format!("Deleted Containers:\n{made}")),
        "{said}"
    );
    ensure!(ok(place, &["ps", "-a", "--format", "{{.Names}}"])? == "runs\n");
    ok(place, &["rm", "-f", "runs"])?;
    assert_nothing(place)
}

fn shells_can_complete(place: &Place) -> Result<()> {
    with_image(place)?;
    for (shell, has) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef sc"),
        ("fish", "complete -c sc"),
    ] {
        let text = ok(place, &["completion", shell])?;
        ensure!(text.contains(has) && text.contains("unpause"), "{shell}");
    }
    ok(place, &["completion", "bash"])
        .and_then(|text| Ok(std::fs::write(place.path("c_c"), text)?))?;
    place.host("bash", ["-n", "c_c"])?;
    std::fs::create_dir(place.path("man"))?;
    ok(place, &["man", "man"])?;
    let page = std::fs::read_to_string(place.path("man/sc-run.1"))?;
    ensure!(page.contains("detach\\-keys"), "{page}");
    assert_nothing(place)
}

fn a_typing_error_is_told_what_is_near(place: &Place) -> Result<()> {
    with_image(place)?;
    ok(place, &["create", "--name", "webserver", "busybox", "true"])?;
    let said = refused(place, &["start", "websrever"], 1)?;
    ensure!(said.contains("webserver"), "{said}");
    ok(place, &["rm", "webserver"])?;
    assert_nothing(place)
}

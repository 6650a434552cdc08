//! What does a seccomp profile in docker's format mean here? That format knows conditions (capabilities,
//! architecture, kernel) that runtime-spec's does not; what is runtime-spec's already stays as it is. Pure.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The profile without its conditions, for a process with the capabilities `caps` on `kernel` (`6.1.0-13`).
pub fn resolve(mut profile: Value, caps: &[String], kernel: &str) -> Result<Value> {
    ensure!(
        profile["defaultAction"].is_string(),
        "defaultAction is missing: no seccomp profile"
    );
    let mut rules = Vec::new();
    for (at, rule) in profile["syscalls"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let context = |key| move || format!("syscalls[{at}].{key}");
        let has = |cap: &Value| caps.iter().any(|own| cap == own.as_str());
        let includes = &rule["includes"];
        let excludes = &rule["excludes"];
        let needed = list(includes, "caps").iter().all(has);
        let forbidden = list(excludes, "caps").iter().any(has);
        if !needed
            || forbidden
            || condition(includes, kernel)
                .with_context(context("includes"))?
                .contains(&false)
            || condition(excludes, kernel)
                .with_context(context("excludes"))?
                .contains(&true)
        {
            continue;
        }
        let mut plain = rule.clone();
        if let Some(plain) = plain.as_object_mut() {
            for key in ["includes", "excludes", "comment"] {
                plain.remove(key);
            }
            if let Some(name) = plain.remove("name").filter(Value::is_string) {
                plain.insert("names".to_owned(), json!([name]));
            }
            plain.retain(|_, value| !value.is_null());
        }
        rules.push(plain);
    }
    profile["syscalls"] = json!(rules);
    if let Some(own) = own_architecture(&profile) {
        profile["architectures"] = own;
    }
    if let Some(profile) = profile.as_object_mut() {
        profile.remove("archMap");
        profile.retain(|_, value| !value.is_null());
    }
    Ok(profile)
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

/// Whether each condition that is there is met, but for capabilities.
fn condition(of: &Value, kernel: &str) -> Result<Vec<bool>> {
    let mut met = Vec::new();
    let arches = list(of, "arches");
    if !arches.is_empty() {
        let own =
            |arch: &Value| arch == ARCHITECTURE.0 || arch == "amd64" && ARCHITECTURE.0 == "x86_64";
        met.push(arches.iter().any(own));
    }
    if let Some(least) = of["minKernel"].as_str() {
        met.push(version(kernel)? >= version(least)?);
    }
    Ok(met)
}

/// As docker and as libseccomp name it.
const ARCHITECTURE: (&str, &str) = match cfg!(target_arch = "aarch64") {
    true => ("arm64", "SCMP_ARCH_AARCH64"),
    false => ("x86_64", "SCMP_ARCH_X86_64"),
};

fn own_architecture(profile: &Value) -> Option<Value> {
    let map = profile["archMap"].as_array()?;
    let own = map
        .iter()
        .find(|entry| entry["architecture"] == ARCHITECTURE.1)?;
    let mut all = vec![json!(ARCHITECTURE.1)];
    all.extend(
        own["subArchitectures"]
            .as_array()
            .cloned()
            .unwrap_or_default(),
    );
    Some(json!(all))
}

fn version(text: &str) -> Result<(u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => anyhow::bail!("{text:?} is no version of a kernel"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_met_or_the_rule_goes() {
        let rule = |name: &str, key: &str, value: Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", key: value });
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "syscalls": [
                rule("always", "comment", json!("")),
                rule("with", "includes", json!({ "caps": ["CAP_CHOWN"] })),
                rule("without", "includes", json!({ "caps": ["CAP_SYS_ADMIN"] })),
                rule("not", "excludes", json!({ "caps": ["CAP_CHOWN"] })),
                rule("old", "includes", json!({ "minKernel": "4.8" })),
                rule("new", "includes", json!({ "minKernel": "99.1" })),
                rule("other", "includes", json!({ "arches": ["s390"] })),
                { "name": "single", "action": "SCMP_ACT_ALLOW", "args": null },
            ],
        });
        let resolved = resolve(profile, &["CAP_CHOWN".into()], "6.1.0-13-amd64").unwrap();
        let names: Vec<&str> = resolved["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|rule| rule["names"][0].as_str())
            .collect();
        assert_eq!(names, ["always", "with", "old", "single"]);
        assert_eq!(
            resolved["syscalls"][3],
            json!({ "names": ["single"], "action": "SCMP_ACT_ALLOW" })
        );
        assert_eq!(resolved["defaultErrnoRet"], 1);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        assert!(resolve(json!({}), &[], "6.1").is_err());
        assert!(resolve(json!([]), &[], "6.1").is_err());
    }
}

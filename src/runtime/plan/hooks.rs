//! Which programs run beside the container, and when?
//!
//! runtime-spec config.md#posix-platform-hooks. Where each kind runs is the performers' part.

use super::{Hook, InitPlan, ParentPlan};
use anyhow::{Result, bail};
use oci_spec::runtime::{Hook as Asked, Hooks};

/// As config.json names them, in the order of their moments.
pub const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Sorts the hooks to the one who runs them. An error names a timeout that is none.
///
/// A hook that asks for no environment has, as under runc, that of who runs it: the process's (`env`)
/// for the two kinds that init runs, the runtime's for the others.
pub fn draw(
    hooks: &Hooks,
    env: &[String],
    parent: &mut ParentPlan,
    init: &mut InitPlan,
) -> Result<()> {
    let [
        prestart,
        create_runtime,
        create_container,
        start_container,
        poststart,
        poststop,
    ] = KINDS;
    #[allow(deprecated)] // by runtime-spec 1.0.2, and still what engines use
    let early = hooks.prestart();
    parent.prestart = list(prestart, early)?;
    parent.create_runtime = list(create_runtime, hooks.create_runtime())?;
    parent.poststart = list(poststart, hooks.poststart())?;
    parent.poststop = list(poststop, hooks.poststop())?;
    init.create_container = list(create_container, hooks.create_container())?;
    init.start_container = list(start_container, hooks.start_container())?;
    let by_init = [&mut init.create_container, &mut init.start_container];
    for hook in by_init.into_iter().flatten() {
        if hook.env.is_empty() {
            hook.env = env.to_vec();
        }
    }
    Ok(())
}

fn list(kind: &str, asked: &Option<Vec<Asked>>) -> Result<Vec<Hook>> {
    let all = asked.iter().flatten().enumerate();
    all.map(|(i, hook)| one(kind, i, hook)).collect()
}

fn one(kind: &str, i: usize, hook: &Asked) -> Result<Hook> {
    Ok(Hook {
        path: hook.path().clone(),
        args: match hook.args() {
            Some(args) if !args.is_empty() => args.clone(),
            // argv[0] at least: a program without may misbehave.
            _ => vec![hook.path().to_string_lossy().into_owned()],
        },
        env: hook.env().clone().unwrap_or_default(),
        timeout: match hook.timeout() {
            None => None,
            Some(seconds @ 1..) => Some(seconds.unsigned_abs()),
            Some(other) => {
                bail!("hooks.{kind}[{i}].timeout: {other} is not a number of seconds above 0")
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(hooks: Value) -> Result<(ParentPlan, InitPlan)> {
        let (mut parent, mut init) = (ParentPlan::default(), InitPlan::default());
        let hooks: Hooks = serde_json::from_value(hooks)?;
        draw(&hooks, &["P=1".to_owned()], &mut parent, &mut init)?;
        Ok((parent, init))
    }

    #[test]
    fn each_kind_goes_to_the_one_who_runs_it() {
        let kinds = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        let asked: Value = kinds
            .map(|kind| (kind.to_owned(), json!([{"path": format!("/{kind}")}])))
            .into_iter()
            .collect();
        let (parent, init) = plan(asked).unwrap();
        let lists = [
            &parent.prestart,
            &parent.create_runtime,
            &init.create_container,
            &init.start_container,
            &parent.poststart,
            &parent.poststop,
        ];
        for (kind, list) in kinds.iter().zip(lists) {
            let env = match *kind {
                "createContainer" | "startContainer" => vec!["P=1".to_owned()],
                _ => vec![],
            };
            let expected = Hook {
                path: format!("/{kind}").into(),
                args: vec![format!("/{kind}")],
                env,
                timeout: None,
            };
            assert_eq!(list, &[expected], "{kind}");
        }
    }

    #[test]
    fn arguments_environment_and_timeout_are_as_asked() {
        let asked = json!({"poststop": [
            {"path": "/a", "args": ["b", "c"], "env": ["K=V"], "timeout": 3}, {"path": "/d", "args": []},
        ]});
        let hooks = plan(asked).unwrap().0.poststop;
        assert_eq!(hooks[0].args, ["b", "c"]);
        assert_eq!(hooks[0].env, ["K=V"]);
        assert_eq!(hooks[0].timeout, Some(3));
        assert_eq!(hooks[1].args, ["/d"]);
    }

    #[test]
    fn a_timeout_must_be_some_seconds() {
        for timeout in [0, -1] {
            let asked =
                json!({"createRuntime": [{"path": "/a"}, {"path": "/b", "timeout": timeout}]});
            assert_eq!(
                plan(asked).unwrap_err().to_string(),
                format!(
                    "hooks.createRuntime[1].timeout: {timeout} is not a number of seconds above 0"
                )
            );
        }
    }
}

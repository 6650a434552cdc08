//! What does `--change 'CMD ["sh"]'` change in an image's config? Instructions of a Dockerfile, those that
//! only say how the image is run.

use super::config::Execution;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// Applies one instruction.
pub fn apply(to: &mut Execution, instruction: &str) -> Result<()> {
    change(to, instruction).with_context(|| format!("--change {instruction:?}"))
}

fn change(to: &mut Execution, instruction: &str) -> Result<()> {
    let (verb, rest) = instruction
        .trim()
        .split_once(char::is_whitespace)
        .context("is not INSTRUCTION VALUE")?;
    let rest = rest.trim();
    match verb.to_ascii_uppercase().as_str() {
        "CMD" => to.cmd = command(rest)?,
        "ENTRYPOINT" => to.entrypoint = command(rest)?,
        "ENV" => {
            for (key, value) in pairs(rest)? {
                to.env.retain(|entry| entry.split('=').next() != Some(&key));
                to.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => to.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = if port.contains('/') {
                    port.to_owned()
                } else {
                    format!("{port}/tcp")
                };
                to.exposed_ports.insert(port, json!({}));
            }
        }
        "VOLUME" => {
            let volumes = if rest.starts_with('[') {
                command(rest)?
            } else {
                words(rest)?
            };
            to.volumes
                .extend(volumes.into_iter().map(|volume| (volume, json!({}))));
        }
        "USER" => to.user = rest.to_owned(),
        "WORKDIR" => {
            ensure!(rest.starts_with('/'), "{rest:?} is not absolute");
            to.working_dir = rest.to_owned();
        }
        "STOPSIGNAL" => to.stop_signal = rest.to_owned(),
        _ => bail!(
            "known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"
        ),
    }
    Ok(())
}

/// A JSON array, or a line for the shell.
fn command(text: &str) -> Result<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).context("is not a JSON array of words");
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `A=1 B="2 3"`, or `A the rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let words = words(text)?;
    let first = words.first().context("has no value")?;
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .context("has no value")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| {
        let (key, value) = word
            .split_once('=')
            .with_context(|| format!("{word:?} is not KEY=VALUE"))?;
        ensure!(!key.is_empty(), "{word:?} has no name");
        Ok((key.to_owned(), value.to_owned()))
    };
    words.iter().map(pair).collect()
}

/// Words between blanks; quotes and backslashes keep blanks in one.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    ensure!(quote.is_none(), "a quote is not closed");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn changed(instructions: &[&str]) -> Value {
        let mut execution = Execution::default();
        for instruction in instructions {
            apply(&mut execution, instruction).unwrap();
        }
        serde_json::to_value(execution).unwrap()
    }

    #[test]
    fn instructions_are_those_of_a_dockerfile() {
        for (instructions, expected) in [
            (
                &[r#"CMD ["sh","-c","x"]"#][..],
                json!({ "Cmd": ["sh", "-c", "x"] }),
            ),
            (
                &["cmd echo hi"],
                json!({ "Cmd": ["/bin/sh", "-c", "echo hi"] }),
            ),
            (
                &[r#"ENV A=1 B="2 3" C='4'"#, "ENV A=5"],
                json!({ "Env": ["B=2 3", "C=4", "A=5"] }),
            ),
            (&["ENV A the rest"], json!({ "Env": ["A=the rest"] })),
            (
                &["EXPOSE 80 53/udp"],
                json!({ "ExposedPorts": { "80/tcp": {}, "53/udp": {} } }),
            ),
            (
                &[r#"VOLUME ["/a","/b"]"#, "VOLUME /c"],
                json!({ "Volumes": { "/a": {}, "/b": {}, "/c": {} } }),
            ),
            (
                &["USER a:b", "WORKDIR /w", "STOPSIGNAL INT"],
                json!({ "User": "a:b", "WorkingDir": "/w", "StopSignal": "INT" }),
            ),
            (&[r"LABEL a=b\ c"], json!({ "Labels": { "a": "b c" } })),
        ] {
            assert_eq!(changed(instructions), expected, "{instructions:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (instruction, why) in [
            ("CMD", "--change \"CMD\": is not INSTRUCTION VALUE"),
            ("WORKDIR x", "--change \"WORKDIR x\": \"x\" is not absolute"),
            ("ENV A", "--change \"ENV A\": has no value"),
            (
                "LABEL a=\"b",
                "--change \"LABEL a=\\\"b\": a quote is not closed",
            ),
            (
                "RUN x",
                "--change \"RUN x\": known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR",
            ),
        ] {
            let mut execution = Execution::default();
            assert_eq!(
                format!("{:#}", apply(&mut execution, instruction).unwrap_err()),
                why
            );
        }
    }
}

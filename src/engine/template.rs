//! What does `--format '{{.Names}}: {{.State.Status}}'` make of an object? The part of Go's templates that people type:
//! fields, `json`, `upper`, `lower`, `index .Labels "key"`.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field {
        how: How,
        path: Vec<String>,
        key: Option<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Json,
    Upper,
    Lower,
}

impl Template {
    pub fn parse(text: &str) -> Result<Template> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, after)) = after.split_once("}}") else {
                bail!("--format {text:?}: a {{{{ has no }}}}");
            };
            parts.push(Part::Text(unescape(before)));
            parts.push(field(inside.trim_matches(['-', ' ']), text)?);
            rest = after;
        }
        parts.push(Part::Text(unescape(rest)));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Template { parts })
    }

    pub fn render(&self, object: &Value) -> Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text += plain,
                Part::Field { how, path, key } => {
                    let mut value = look_up(object, path)?;
                    let found;
                    if let Some(key) = key {
                        found = keyed(value, key);
                        value = &found;
                    }
                    text += &shown(value, *how)?;
                }
            }
        }
        Ok(text)
    }

    /// The last names of its fields: what stands above their columns.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field { path, .. } => path.last().map(String::as_str),
            Part::Text(_) => None,
        })
    }
}

/// `\t` and `\n`, as shells leave them.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

fn field(inside: &str, whole: &str) -> Result<Part> {
    let mut words: Vec<&str> = inside.split_whitespace().collect();
    let how = match words.first() {
        Some(&"json") => How::Json,
        Some(&"upper") => How::Upper,
        Some(&"lower") => How::Lower,
        _ => How::Plain,
    };
    let indexed = words.first() == Some(&"index");
    if how != How::Plain || indexed {
        words.remove(0);
    }
    let (dotted, key) = match words.as_slice() {
        [dotted] if !indexed => (*dotted, None),
        // docker's `.Label "key"` is a look into Labels.
        [".Label", key] => (".Labels", Some(*key)),
        [dotted, key] if indexed => (*dotted, Some(*key)),
        _ => bail!("--format {whole:?}: {{{{{inside}}}}} is not understood; write {{{{.Field}}}}"),
    };
    ensure!(
        dotted.starts_with('.'),
        "--format {whole:?}: {dotted:?} is no field; write .{dotted}"
    );
    let path = dotted.split('.').filter(|name| !name.is_empty());
    Ok(Part::Field {
        how,
        path: path.map(str::to_owned).collect(),
        key: key.map(|key| key.trim_matches(['"', '\'', '`']).to_owned()),
    })
}

fn look_up<'a>(object: &'a Value, path: &[String]) -> Result<&'a Value> {
    let mut value = object;
    for name in path {
        let Some(fields) = value.as_object() else {
            bail!("--format: there is nothing in .{}", path.join("."));
        };
        let Some(found) = fields.get(name) else {
            let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
            names.sort_unstable();
            bail!(
                "--format: there is no field {name:?}; there are {}",
                names.join(", ")
            );
        };
        value = found;
    }
    Ok(value)
}

/// In an object, or in the labels of a list: `a=b,c=d`.
fn keyed(value: &Value, key: &str) -> Value {
    match value {
        Value::String(list) => {
            let mut pairs = list.split(',').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(name, _)| *name == key);
            found.map_or(Value::Null, |(_, value)| value.into())
        }
        other => other.get(key).cloned().unwrap_or_default(),
    }
}

fn shown(value: &Value, how: How) -> Result<String> {
    let plain = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Ok(match how {
        How::Plain => plain,
        How::Json => serde_json::to_string(value)?,
        How::Upper => plain.to_uppercase(),
        How::Lower => plain.to_lowercase(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_put_in_their_places() {
        let object = json!({ "ID": "1f", "State": { "Pid": 7, "Status": "up" }, "Labels": { "a.b": "c" }, "List": "x=1,y=2" });
        for (template, expected) in [
            ("{{.ID}}", "1f"),
            (r"{{ .ID }}\t{{.State.Pid}}", "1f\t7"),
            ("{{json .State}}", r#"{"Pid":7,"Status":"up"}"#),
            ("{{upper .State.Status}}!", "UP!"),
            (r#"{{index .Labels "a.b"}}"#, "c"),
            (r#"{{.Label "a.b"}}"#, "c"),
            (r#"{{.Label "none"}}"#, ""),
            (r#"{{index .List "y"}}"#, "2"),
            ("plain", "plain"),
            ("", ""),
        ] {
            let rendered = Template::parse(template).unwrap().render(&object).unwrap();
            assert_eq!(rendered, expected, "{template}");
        }
        let whole = Template::parse("{{json .}}")
            .unwrap()
            .render(&object)
            .unwrap();
        assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), object);
    }

    #[test]
    fn an_unknown_field_is_told_with_those_that_are_there() {
        let error = Template::parse("{{.Nmae}}")
            .unwrap()
            .render(&json!({ "Name": 1, "ID": 2 }));
        assert_eq!(
            error.unwrap_err().to_string(),
            "--format: there is no field \"Nmae\"; there are ID, Name"
        );
        for bad in ["{{.A", "{{A}}", "{{}}", "{{range .A}}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}

//! How is a list shown? As a table for people, an object a line for programs, or as `--format` says. `ps`, `stats` and
//! every `ls` are shown by this.

use super::template::Template;
use crate::show;
use anyhow::Result;
use clap::Args;
use serde_json::Value;
use std::io::IsTerminal;

#[derive(Debug, Default, Args)]
pub struct Format {
    /// table, json (an object a line), or a template like '{{.Name}}'; `table {{.Name}}` with a head
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// What stands above a column, and the key of what is in it.
pub type Column = (&'static str, &'static str);

impl Format {
    /// `rows` are objects with a key for each of `columns`, and perhaps more.
    pub fn list(&self, columns: &[Column], rows: &[Value]) -> Result<String> {
        match self.format.as_deref() {
            None | Some("table" | "") => {
                let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
                let cell = |row: &Value, key: &str| match &row[key] {
                    Value::String(text) => show::printable(text),
                    Value::Null => String::new(),
                    other => other.to_string(),
                };
                let cells = |row| columns.iter().map(|(_, key)| cell(row, key)).collect();
                Ok(paint(show::table(
                    &heads,
                    &rows.iter().map(cells).collect::<Vec<_>>(),
                )))
            }
            Some("json") => Ok(rows.iter().map(|row| format!("{row}\n")).collect()),
            Some(text) => match text.strip_prefix("table ") {
                Some(text) => tabular(&Template::parse(text)?, columns, rows),
                None => {
                    let template = Template::parse(text)?;
                    rows.iter()
                        .map(|row| Ok(template.render(row)? + "\n"))
                        .collect()
                }
            },
        }
    }
}

/// `table {{.ID}}\t{{.Names}}`: tabs are columns.
fn tabular(template: &Template, columns: &[Column], rows: &[Value]) -> Result<String> {
    let head = |field: &str| {
        let known = columns.iter().find(|(_, key)| *key == field);
        known.map_or(field.to_uppercase(), |(head, _)| (*head).to_owned())
    };
    let heads: Vec<String> = template.fields().map(head).collect();
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let split = |row| -> Result<Vec<String>> {
        let line = template.render(row)?;
        Ok(line.split('\t').map(show::printable).collect())
    };
    let cells = rows.iter().map(split).collect::<Result<Vec<_>>>()?;
    Ok(paint(show::table(&heads, &cells)))
}

/// On a terminal, the head stands out (no-color.org says when not).
pub fn paint(table: String) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    match table.split_once('\n') {
        Some((head, rest)) if !plain && std::io::stdout().is_terminal() => {
            format!("\x1b[1m{head}\x1b[0m\n{rest}")
        }
        _ => table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_shown_in_four_ways() {
        let rows = [
            json!({ "ID": "1f", "Names": "web" }),
            json!({ "ID": "2", "Names": "x" }),
        ];
        let columns = [("CONTAINER ID", "ID"), ("NAMES", "Names")];
        for (format, expected) in [
            (
                None,
                "CONTAINER ID   NAMES\n1f             web\n2              x\n",
            ),
            (
                Some("json"),
                "{\"ID\":\"1f\",\"Names\":\"web\"}\n{\"ID\":\"2\",\"Names\":\"x\"}\n",
            ),
            (Some("{{.Names}}!"), "web!\nx!\n"),
            (
                Some(r"table {{.Names}}\t{{.ID}}"),
                "NAMES   CONTAINER ID\nweb     1f\nx       2\n",
            ),
        ] {
            let format = Format {
                format: format.map(str::to_owned),
            };
            assert_eq!(format.list(&columns, &rows).unwrap(), expected);
        }
    }
}
